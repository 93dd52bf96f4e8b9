//! Published backbones, from a cache and from a server on loopback.

use std::path::Path;

use peftk::io::hub::{Settings, find, repository};

use crate::common::{open, says, state, tiny};

fn settings(cache: &Path, endpoint: &str, offline: bool) -> Settings {
    Settings { cache: cache.to_owned(), endpoint: endpoint.to_owned(), offline, token: None }
}

#[test]
fn names_and_variables_are_huggingfaces() {
    assert_eq!(repository("dinov2-small"), "facebook/dinov2-small");
    assert_eq!(repository("dinov2-giant-reg"), "facebook/dinov2-with-registers-giant");
    let with = |pairs: &'static [(&str, &str)]| {
        Settings::from_lookup(move |key| pairs.iter().find(|(k, _)| *k == key).map(|(_, v)| (*v).to_owned()))
    };
    let all = with(&[("HF_HUB_CACHE", "/c"), ("HF_HOME", "/h"), ("HOME", "/me"), ("HF_HUB_OFFLINE", "1")]).unwrap();
    assert!(all.cache == Path::new("/c") && all.offline && all.endpoint == "https://huggingface.co");
    let home =
        with(&[("HF_HOME", "/h"), ("HOME", "/me"), ("HF_ENDPOINT", "http://m/"), ("HF_HUB_OFFLINE", "0")]).unwrap();
    assert!(home.cache == Path::new("/h/hub") && !home.offline && home.endpoint == "http://m");
    assert_eq!(with(&[("HOME", "/me")]).unwrap().cache, Path::new("/me/.cache/huggingface/hub"));
    assert!(with(&[]).is_err());
}

#[test]
fn the_cache_is_asked_first_and_offline_says_what_to_fetch() {
    let cache = tempfile::tempdir().unwrap();
    let offline = settings(cache.path(), "http://127.0.0.1:1", true);
    let home = cache.path().join("models--facebook--dinov2-with-registers-base");
    let error = find("dinov2-base-reg", &offline, &mut |_| {}).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let local = home.join("snapshots").join("local");
    let words = ["HF_HUB_OFFLINE", "config.json and model.safetensors", "facebook/dinov2-with-registers-base"];
    says(&error.to_string(), &words);
    says(&error.to_string(), &[local.to_str().unwrap(), "--backbone"]);
    assert!(!error.to_string().contains('\n'));

    // The folder that the error names is where the files are then found.
    let config = tiny(false, 4);
    peftk::io::save_transformers(&local, &config, &state(&config), None, None).unwrap();
    assert_eq!(find("dinov2-base-reg", &offline, &mut |_| {}).unwrap(), local);
    // What the cache's `main` points to goes before it, once it is whole.
    let main = home.join("snapshots").join("abc");
    std::fs::create_dir_all(home.join("refs")).unwrap();
    std::fs::write(home.join("refs/main"), "abc\n").unwrap();
    std::fs::create_dir_all(&main).unwrap();
    assert_eq!(find("dinov2-base-reg", &offline, &mut |_| {}).unwrap(), local);
    peftk::io::save_transformers(&main, &config, &state(&config), None, None).unwrap();
    let found = find("dinov2-base-reg", &offline, &mut |_| {}).unwrap();
    assert_eq!(found, main);
    assert_eq!(open(&found).unwrap().0.config, config);
}

#[cfg(not(feature = "hub"))]
#[test]
fn a_build_without_the_feature_says_so() {
    let cache = tempfile::tempdir().unwrap();
    let error = find("dinov2-small", &settings(cache.path(), "http://127.0.0.1:1", false), &mut |_| {}).unwrap_err();
    says(&error.to_string(), &["lacks the feature hub", "facebook/dinov2-small"]);
}

#[cfg(feature = "hub")]
mod download {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::common::classifier;

    /// A hub on loopback with one model; it counts the requests and keeps the paths.
    struct Hub {
        endpoint: String,
        requests: Arc<AtomicUsize>,
        paths: Arc<Mutex<Vec<String>>>,
    }

    fn serve(folder: &Path, repository: &'static str) -> Hub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (requests, paths) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let hub = Hub { endpoint, requests: requests.clone(), paths: paths.clone() };
        let folder = folder.to_owned();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                requests.fetch_add(1, Ordering::SeqCst);
                // A reader that went away is its own affair.
                let _ = answer(stream, &folder, repository, &paths);
            }
        });
        hub
    }

    /// Answers one request, as the hub does: the file or a range of it, with its commit and etag; else 404. What was asked for is noted before the
    /// answer, on which the test goes on.
    fn answer(mut stream: TcpStream, folder: &Path, repository: &str, paths: &Mutex<Vec<String>>) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let mut request = String::new();
        reader.read_line(&mut request).ok()?;
        let path = request.split_whitespace().nth(1)?.to_owned();
        paths.lock().unwrap().push(path.clone());
        let (mut first, mut last) = (0, usize::MAX);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            if line.trim().is_empty() {
                break;
            }
            if let Some(range) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
                let (from, to) = range.trim().split_once('-')?;
                first = from.parse().ok()?;
                last = to.parse().unwrap_or(usize::MAX);
            }
        }
        let file = path.strip_prefix(&format!("/{repository}/resolve/main/"));
        let Some(bytes) = file.and_then(|file| std::fs::read(folder.join(file)).ok()) else {
            stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").ok()?;
            return Some(());
        };
        let end = last.saturating_add(1).min(bytes.len());
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {first}-{}/{}\r\n\
             ETag: \"etag-{}\"\r\nX-Repo-Commit: 0123abcd\r\nConnection: close\r\n\r\n",
            end - first,
            end - 1,
            bytes.len(),
            file?
        );
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(&bytes[first..end]).ok()
    }

    #[test]
    fn a_model_is_fetched_once_into_the_cache() {
        let (origin, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let config = tiny(false, 4);
        let state = state(&config);
        peftk::io::save_transformers(origin.path(), &config, &state, Some(&classifier(128)), None).unwrap();
        let hub = serve(origin.path(), "facebook/dinov2-with-registers-small");
        let online = settings(cache.path(), &hub.endpoint, false);
        let mut notes = Vec::new();
        let folder = find("dinov2-small-reg", &online, &mut |note| notes.push(note.to_owned())).unwrap();
        says(&notes[0], &["downloading facebook/dinov2-with-registers-small", &hub.endpoint]);
        let home = cache.path().join("models--facebook--dinov2-with-registers-small");
        assert_eq!(folder, home.join("snapshots/0123abcd"));
        for file in ["config.json", "model.safetensors"] {
            let (there, here) = (std::fs::read(origin.path().join(file)), std::fs::read(folder.join(file)));
            assert!(there.unwrap() == here.unwrap(), "{file}");
        }
        let (read, _) = open(&folder).unwrap();
        assert_eq!((read.config, read.classifier), (config, Some(classifier(128))));

        // From now on the cache answers, on the network and off it.
        let asked = hub.requests.load(Ordering::SeqCst);
        assert_eq!(find("dinov2-small-reg", &online, &mut |_| {}).unwrap(), folder);
        let offline = Settings { offline: true, ..online };
        assert_eq!(find("dinov2-small-reg", &offline, &mut |_| {}).unwrap(), folder);
        assert_eq!(hub.requests.load(Ordering::SeqCst), asked);
    }

    #[test]
    fn a_failed_download_says_what_to_fetch() {
        let (origin, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let hub = serve(origin.path(), "facebook/dinov2-small");
        let error = |endpoint: &str| {
            let error = find("dinov2-small", &settings(cache.path(), endpoint, false), &mut |_| {}).unwrap_err();
            assert!(error.exit_code() == 2 && !error.to_string().contains('\n'), "{error}");
            error.to_string()
        };
        says(&error(&hub.endpoint), &["config.json", "404", "/facebook/dinov2-small", "snapshots/local"]);
        assert_eq!(hub.paths.lock().unwrap()[0], "/facebook/dinov2-small/resolve/main/config.json");
        // Nobody listens there.
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        says(&error(&format!("http://{free}")), &["config.json", "snapshots/local"]);
    }
}
