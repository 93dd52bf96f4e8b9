//! Published backbones by name: in the Hugging Face cache of this machine, else downloaded into it.

use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// What a backbone needs.
const FILES: [&str; 2] = ["config.json", "model.safetensors"];

/// Where published models are looked for.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The hub cache, the folder that holds `models--OWNER--NAME`.
    pub cache: PathBuf,
    /// The hub's address.
    pub endpoint: String,
    /// Never ask the network.
    pub offline: bool,
    /// Access token, which published DINOv2 models do not need but a mirror may.
    pub token: Option<String>,
}

impl Settings {
    /// As Hugging Face's own tools read the environment: `HF_HUB_CACHE`, else `HF_HOME`/hub, else
    /// `XDG_CACHE_HOME`/huggingface/hub, else `~/.cache/huggingface/hub`; `HF_ENDPOINT`, `HF_HUB_OFFLINE`, `HF_TOKEN`.
    ///
    /// # Errors
    /// Where none of these says where the cache is.
    pub fn from_env() -> Result<Self> {
        Self::from_lookup(|key| std::env::var(key).ok().filter(|value| !value.trim().is_empty()))
    }

    /// [`Settings::from_env`] on any source of variables.
    ///
    /// # Errors
    /// Where none says where the cache is.
    pub fn from_lookup(get: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let under = |key: &str, path: &str| get(key).map(|root| Path::new(&root).join(path));
        let cache = get("HF_HUB_CACHE")
            .map(PathBuf::from)
            .or_else(|| under("HF_HOME", "hub"))
            .or_else(|| under("XDG_CACHE_HOME", "huggingface/hub"))
            .or_else(|| under("HOME", ".cache/huggingface/hub"))
            .or_else(|| under("USERPROFILE", ".cache/huggingface/hub"))
            .ok_or_else(|| Error::input("no hub cache: set HF_HOME, or give --backbone a folder"))?;
        let offline = get("HF_HUB_OFFLINE")
            .is_some_and(|value| matches!(value.trim().to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE"));
        let endpoint = get("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        Ok(Self { cache, endpoint: endpoint.trim_end_matches('/').to_owned(), offline, token: get("HF_TOKEN") })
    }
}

/// The hub's repository of a short name: `dinov2-small-reg` is `facebook/dinov2-with-registers-small`.
pub fn repository(name: &str) -> String {
    let size = name.strip_prefix("dinov2-").unwrap_or(name);
    match size.strip_suffix("-reg") {
        Some(size) => format!("facebook/dinov2-with-registers-{size}"),
        None => format!("facebook/dinov2-{size}"),
    }
}

/// The folder with a published model's `config.json` and `model.safetensors`: the cache's, else downloaded into the
/// cache with a progress bar (on a terminal only).
///
/// # Errors
/// Offline, without the `hub` feature, or when the download fails: one line that says which files to fetch and the
/// folder to put them in.
pub fn find(name: &str, settings: &Settings, progress: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let repository = repository(name);
    let home = settings.cache.join(format!("models--{}", repository.replace('/', "--")));
    if let Some(folder) = cached(&home) {
        progress(&format!("{name}: found in {}", folder.display()));
        return Ok(folder);
    }
    let reason = if settings.offline {
        "HF_HUB_OFFLINE is set".to_owned()
    } else {
        progress(&format!("{name}: downloading {repository} from {}", settings.endpoint));
        match download(&repository, settings) {
            Ok(folder) => return Ok(folder),
            Err(reason) => reason,
        }
    };
    Err(Error::input(format!(
        "backbone {name} is not in the hub cache ({reason}); fetch {} of {}/{repository} and put them in {}, or pass \
         their folder to --backbone",
        FILES.join(" and "),
        settings.endpoint,
        home.join("snapshots").join("local").display()
    )))
}

/// The snapshot that the cache's `main` points to, else the last one by name that is whole.
fn cached(home: &Path) -> Option<PathBuf> {
    let snapshots = home.join("snapshots");
    let whole = |folder: &PathBuf| FILES.iter().all(|file| folder.join(file).is_file());
    if let Ok(commit) = std::fs::read_to_string(home.join("refs").join("main")) {
        let folder = snapshots.join(commit.trim());
        if whole(&folder) {
            return Some(folder);
        }
    }
    let entries = std::fs::read_dir(snapshots).ok()?;
    entries.filter_map(|entry| Some(entry.ok()?.path())).filter(whole).max()
}

#[cfg(feature = "hub")]
fn download(repository: &str, settings: &Settings) -> std::result::Result<PathBuf, String> {
    use hf_hub::api::sync::ApiBuilder;

    let api = ApiBuilder::from_cache(hf_hub::Cache::new(settings.cache.clone()))
        .with_endpoint(settings.endpoint.clone())
        .with_user_agent("peftk", env!("CARGO_PKG_VERSION"));
    let api = match &settings.token {
        Some(token) => api.with_token(Some(token.clone())),
        None => api,
    };
    let api = api.build().map_err(super::one_line)?;
    let model = api.model(repository.to_owned());
    let mut folder = None;
    for file in FILES {
        let path = model
            .download_with_progress(file, Bar::default())
            .map_err(|e| format!("{file}: {}", super::one_line(e)))?;
        folder = path.parent().map(Path::to_owned);
    }
    folder.ok_or_else(|| "the download has no folder".into())
}

#[cfg(not(feature = "hub"))]
fn download(_: &str, _: &Settings) -> std::result::Result<PathBuf, String> {
    Err("this build cannot download: it lacks the feature hub".into())
}

/// A file's progress on stderr, drawn only on a terminal.
#[cfg(feature = "hub")]
#[derive(Default)]
struct Bar(Option<indicatif::ProgressBar>);

#[cfg(feature = "hub")]
impl hf_hub::api::Progress for Bar {
    fn init(&mut self, size: usize, filename: &str) {
        // Called again where a download starts over; the first bar serves.
        let bar = self.0.get_or_insert_with(|| indicatif::ProgressBar::new(size as u64));
        if let Ok(style) =
            indicatif::ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
        {
            bar.set_style(style);
        }
        bar.set_message(filename.to_owned());
        bar.set_position(0);
    }

    fn update(&mut self, size: usize) {
        if let Some(bar) = &self.0 {
            bar.inc(size as u64);
        }
    }

    fn finish(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
