//! From the names in a case (transformers 5 and peft's) to the model's values.

use peftk::autograd::{Backend, ParamId, Params};

/// Where a named tensor lies: a parameter and, for a part of a packed one, the share of its numbers.
pub(crate) struct Place {
    pub(crate) id: ParamId,
    pub(crate) part: usize,
    pub(crate) parts: usize,
}

impl Place {
    pub(crate) fn of<'a>(&self, values: &'a [f32]) -> &'a [f32] {
        let len = values.len() / self.parts;
        &values[self.part * len..][..len]
    }
}

pub(crate) fn find<B: Backend>(params: &Params<B>, name: &str) -> Place {
    let name = name.trim_start_matches("base_model.model.");
    let name = name.trim_start_matches("dinov2_with_registers.").trim_start_matches("dinov2.");
    let name = name.replace(".modules_to_save.default", "").replace(".default.weight", "").replace(".default", "");
    let name = name.strip_suffix(".weight").filter(|n| n.contains("lora_")).unwrap_or(&name).to_owned();
    let by_name = |name: &str| params.iter().find(|(_, p)| p.name == name).map(|(id, _)| id);
    if let Some(id) = by_name(&name) {
        return Place { id, part: 0, parts: 1 };
    }
    for (part, short) in ["q_proj", "k_proj", "v_proj"].into_iter().enumerate() {
        if name.contains(short) {
            let id = by_name(&name.replace(&format!("attention.{short}"), "qkv"));
            return Place { id: id.unwrap_or_else(|| panic!("{name}")), part, parts: 3 };
        }
    }
    let id = by_name(&name.replace("attention.o_proj", "attention.output.dense"));
    Place { id: id.unwrap_or_else(|| panic!("no value {name}")), part: 0, parts: 1 }
}
