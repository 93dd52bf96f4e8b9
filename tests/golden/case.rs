//! One case: its files, and the model they describe on any device.

use peftk::adapter::{self, AdapterFile};
use peftk::autograd::{Backend, Params, Tape};
use peftk::config::{Pool, Recompute};
use peftk::data::{self, Batch, Source};
use peftk::io::{Backbone, BackboneSpec};
use peftk::task::criterion::Criterion;
use peftk::train::step::StepOptions;
use peftk::vit::build::{BuildOptions, build};
use peftk::vit::{Mode, Vit};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::measure::tensor;

pub(crate) struct Case {
    pub(crate) json: Value,
    pub(crate) backbone: Backbone,
    pub(crate) adapter: Option<AdapterFile>,
    pub(crate) tensors: Vec<u8>,
    pub(crate) batch: Batch,
}

impl Case {
    pub(crate) fn read(name: &str) -> Self {
        let dir = crate::measure::data().join(name);
        let json: Value = serde_json::from_slice(&std::fs::read(dir.join("case.json")).unwrap()).unwrap();
        let path = dir.join(json["backbone"].as_str().unwrap());
        let backbone = peftk::io::load(&BackboneSpec::Folder(path), &mut |_| {}).unwrap();
        let adapter = dir.join("adapter").exists().then(|| adapter::read(&dir.join("adapter")).unwrap());
        if let Some(adapter) = &adapter {
            adapter.check(&backbone.config).unwrap();
        }
        let tensors = std::fs::read(dir.join("tensors.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&tensors).unwrap();
        let size = json["input_size"].as_u64().unwrap() as usize;
        let (mut images, mut indices) = (Vec::new(), Vec::new());
        for (index, file) in json["files"].as_array().unwrap().iter().enumerate() {
            let image = data::decode(&Source::File(dir.join(file.as_str().unwrap()))).unwrap();
            assert_eq!((image.width, image.height), (size, size));
            images.extend(image.pixels);
            indices.push(index);
        }
        let labels = tensor(&file, "labels").0;
        let multilabel = json["multilabel"].as_bool().unwrap();
        let batch = Batch {
            images,
            sources: None,
            features: None,
            size,
            labels: if multilabel { vec![] } else { labels.iter().map(|&x| x as usize).collect() },
            targets: if multilabel { labels.iter().map(|&x| x as f32).collect() } else { vec![] },
            indices,
        };
        Self { json, backbone, adapter, tensors, batch }
    }

    pub(crate) fn options(&self) -> StepOptions {
        let criterion = if self.batch.labels.is_empty() { Criterion::Binary } else { Criterion::CROSS_ENTROPY };
        StepOptions { criterion, micro_batch: None, recompute: Recompute::NOTHING }
    }

    pub(crate) fn model<B: Backend>(&self, backend: B) -> (Vit, Params<B>) {
        let mut params = Params::new(backend);
        let head =
            self.adapter.as_ref().and_then(|a| a.classifier.clone()).or(self.backbone.classifier.clone()).unwrap();
        let options = BuildOptions {
            train_backbone: self.json["strategy"] == "full",
            train: true,
            adapter: self.adapter.as_ref(),
            dora_norm_grad: false,
            pool: Pool::ClsMean,
            input_size: self.batch.size,
        };
        let vit = build(&mut params, &self.backbone.config, self.backbone.state.clone(), &head, &options).unwrap();
        (vit, params)
    }

    pub(crate) fn logits<B: Backend>(&self, vit: &Vit, params: &Params<B>) -> Vec<f32> {
        let tape = Tape::inference(params);
        let count = self.batch.indices.len();
        vit.logits(&tape, &self.batch.images, count, Mode::default())
            .unwrap()
            .array()
            .download(params.backend())
            .unwrap()
    }
}
