//! The page in headless Chromium: a copy with a script that acts and posts what it saw, inside a frame of the width asked for.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::{Needs, Other, Test};
use crate::made;

pub const TESTS: &[Test] = &[
    browser("browser::charts_are_drawn_and_nothing_overflows", charts_are_drawn_and_nothing_overflows),
    browser("browser::heads_sort_rows", heads_sort_rows),
    browser("browser::colours_follow_the_system_and_the_button", colours_follow_the_system_and_the_button),
];

const fn browser(name: &'static str, run: fn()) -> Test {
    Test { name, needs: Needs::Other(&CHROMIUM), run }
}

static CHROMIUM: Other = Other {
    what: "browser",
    variable: "PEFTK_REQUIRE_CHROMIUM",
    missing: || {
        chromium().is_none().then(|| "no chromium, chromium-browser or google-chrome; PEFTK_CHROMIUM names one".into())
    },
};

/// PEFTK_CHROMIUM, or the first of the usual names on the path.
fn chromium() -> Option<PathBuf> {
    if let Some(given) = std::env::var_os("PEFTK_CHROMIUM") {
        return Some(given.into()).filter(|path: &PathBuf| path.is_file());
    }
    let path = std::env::var_os("PATH")?;
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    names.iter().find_map(|name| folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file()))
}

/// What `script`, run in the page after its own, returns. Errors and refused loads fail the test.
fn seen(dir: &Path, name: &str, width: u32, is_dark: bool, script: &str) -> Value {
    let page = std::fs::read_to_string(dir.join("report.html")).unwrap();
    let early = "<head><script>window.problems = []; \
                 addEventListener('error', e => problems.push(String(e.message || e.target.outerHTML)), true); \
                 console.error = console.warn = (...all) => problems.push(all.join(' '));</script>";
    let late = format!(
        "<script>addEventListener('load', () => {{ let value; try {{ value = (() => {{ {script} }})(); }} \
         catch (e) {{ problems.push(String(e)); }} \
         parent.postMessage(JSON.stringify({{ value, problems, width: innerWidth }}), '*'); }});</script></body>"
    );
    let copy = page.replacen("<head>", early, 1).replacen("</body>", &late, 1);
    std::fs::write(dir.join(format!("{name}.probe.html")), copy).unwrap();
    let frame = format!(
        "<!DOCTYPE html><meta name=\"color-scheme\" content=\"light dark\"><body><pre id=\"seen\"></pre><script>\
         addEventListener('message', e => document.getElementById('seen').textContent = e.data);</script>\
         <iframe src=\"{name}.probe.html\" style=\"width:{width}px;height:800px;border:0\"></iframe></body>"
    );
    let outer = dir.join(format!("{name}.frame.html"));
    std::fs::write(&outer, frame).unwrap();
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new(chromium().expect("it was there a moment ago"))
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1400,900"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!is_dark)))
        .args(["--virtual-time-budget=5000", "--dump-dom"])
        .arg(format!("file://{}", outer.display()))
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&output.stdout);
    let text = dom.split_once("<pre id=\"seen\">").and_then(|(_, rest)| rest.split_once("</pre>"));
    let text = text.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr))).0;
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    let seen: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: '{text}'"));
    assert_eq!(seen["problems"], serde_json::json!([]), "{name}");
    assert_eq!(seen["width"], width);
    seen["value"].clone()
}

fn charts_are_drawn_and_nothing_overflows() {
    let (results, extras) = made::full();
    let small = made::written("browser-full", &results, &extras);
    let large = made::written("browser-large", &made::large(), &extras);
    let long = made::written("browser-long", &made::long_names(), &extras);
    let script = "document.querySelectorAll('details').forEach(one => { one.open = true; });
        const root = document.documentElement;
        const charts = [...document.querySelectorAll('figure svg')].map(svg => {
            const box = svg.getBoundingClientRect();
            const view = svg.viewBox.baseVal;
            // Every text stands inside its drawing.
            const outside = [...svg.querySelectorAll('text')].filter(text => {
                const b = text.getBoundingClientRect();
                return b.left < box.left - 1 || b.right > box.right + 1 || b.top < box.top - 1 || b.bottom > box.bottom + 1;
            }).map(text => text.textContent);
            return { width: box.width, height: box.height, view: view.width, outside,
                     label: document.getElementById(svg.getAttribute('aria-labelledby').split(' ')[0]).textContent };
        });
        return { charts, overflow: root.scrollWidth - root.clientWidth, images: [...document.images].map(i => i.naturalWidth) };";
    for dir in [&small, &large, &long] {
        for width in [360, 390, 768, 1280] {
            let seen = seen(dir, &format!("size-{width}"), width, false, script);
            assert_eq!(seen["overflow"], 0, "{} at {width}", dir.display());
            assert_eq!(seen["images"], serde_json::json!([64]));
            let charts = seen["charts"].as_array().unwrap();
            assert_eq!(charts.len(), 6);
            for chart in charts {
                assert!(
                    chart["width"].as_f64().unwrap() > 300.0 && chart["height"].as_f64().unwrap() > 100.0,
                    "{chart}"
                );
                assert_eq!(chart["outside"], serde_json::json!([]), "{chart}");
                assert!(!chart["label"].as_str().unwrap().is_empty());
            }
        }
    }
}

fn heads_sort_rows() {
    let (results, extras) = made::full();
    let dir = made::written("browser-sort", &results, &extras);
    let script = "document.querySelectorAll('details').forEach(one => { one.open = true; });
        const out = [];
        for (const table of document.querySelectorAll('table')) {
            [...table.tHead.rows[0].cells].forEach((head, column) => {
                const cells = () => [...table.tBodies[0].rows].map(row => row.cells[column]);
                const before = table.tBodies[0].rows.length;
                const state = () => {
                    const others = [...table.tHead.rows[0].cells].filter(h => h !== head);
                    return { sort: head.getAttribute('aria-sort'), others: others.every(h => h.getAttribute('aria-sort') === 'none'),
                             values: cells().map(c => c.dataset.v === undefined ? null : Number(c.dataset.v)),
                             texts: cells().map(c => c.textContent) };
                };
                head.querySelector('button').click();
                const up = state();
                // A key does the same: a button takes Enter as a click.
                head.querySelector('button').focus();
                const focused = document.activeElement === head.querySelector('button');
                document.activeElement.click();
                const down = state();
                out.push({ table: table.id, head: head.textContent, numeric: head.classList.contains('n'), before, focused, up, down });
            });
        }
        return out;";
    let seen = seen(&dir, "sort", 1280, false, script);
    let columns = seen.as_array().unwrap();
    assert!(columns.len() > 60);
    let mut moved = 0;
    for column in columns {
        let (up, down) = (&column["up"], &column["down"]);
        assert_eq!((up["sort"].as_str(), down["sort"].as_str()), (Some("ascending"), Some("descending")), "{column}");
        assert!(up["others"] == true && down["others"] == true && column["focused"] == true, "{column}");
        assert_eq!(up["values"].as_array().unwrap().len() as u64, column["before"].as_u64().unwrap());
        if column["numeric"] == true {
            let values = |state: &Value| -> Vec<Option<f64>> {
                state["values"].as_array().unwrap().iter().map(Value::as_f64).collect()
            };
            let (up, down) = (values(up), values(down));
            let given = |values: &[Option<f64>]| values.iter().flatten().copied().collect::<Vec<f64>>();
            assert!(given(&up).is_sorted() && given(&down).is_sorted_by(|a, b| a >= b), "{column}");
            // What has no number is last both ways.
            for values in [&up, &down] {
                assert!(values.iter().skip_while(|value| value.is_some()).all(Option::is_none), "{column}");
            }
            moved += usize::from(up != down);
        }
    }
    assert!(moved > 10, "sorting moved rows in {moved} columns");
}

fn colours_follow_the_system_and_the_button() {
    let (results, extras) = made::full();
    let dir = made::written("browser-colours", &results, &extras);
    let script = "const state = () => {
            const text = document.querySelector('figure svg text');
            return [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color, getComputedStyle(text).fill];
        };
        const button = document.getElementById('theme');
        const states = [state()];
        for (let i = 0; i < 3; i++) { button.click(); states.push(state()); }
        return { states, hidden: button.hidden };";
    let bright = |colour: &Value| -> f64 {
        let numbers = colour.as_str().unwrap().trim_start_matches("rgb(").trim_end_matches(')').split(',');
        numbers.map(|number| number.trim().parse::<f64>().unwrap()).sum::<f64>() / 3.0
    };
    for is_dark in [false, true] {
        let seen = seen(&dir, &format!("colours-{is_dark}"), 1280, is_dark, script);
        assert_eq!(seen["hidden"], false);
        let states = seen["states"].as_array().unwrap();
        // As the system has it, light, dark, as the system has it again.
        let expected = [is_dark, false, true, is_dark];
        for (state, is_dark) in states.iter().zip(expected) {
            let [paper, ink, chart] = [0, 1, 2].map(|i| bright(&state[i]));
            assert_eq!(paper < 128.0, is_dark, "{seen}");
            assert!((paper - ink).abs() > 150.0 && (paper - chart).abs() > 80.0, "{seen}");
        }
    }
}
