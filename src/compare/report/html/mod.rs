//! `report.html`: one file that needs no other and no network.

mod table;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Extras;
use super::charts::{Chart, escape};
use super::tables;
use crate::compare::advice::{About, Advice};
use crate::compare::results::Results;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// The colours of a dark page: for those whose system asks for one, and for those who press the button.
const DARK: &str = "color-scheme:dark;--paper:#14171a;--ink:#e6e9ec;--muted:#9aa4ae;--grid:#2c3238;--soft:#1b1f24;--good:#5ad1a4;\
                    --bad:#ff8f73;--link:#7cc4f5;--edge:#39424b";

/// The whole file.
pub fn of(results: &Results, advice: &Advice, charts: &[Chart], extras: &Extras) -> String {
    let mut body = String::new();
    head(&mut body, results, advice);
    overview(&mut body, results);
    figures(&mut body, charts);
    if let Some(published) = extras.published {
        body += "<section aria-labelledby=\"h-published\"><h2 id=\"h-published\">Published results</h2>";
        body += &format!("<p>{}</p>", escape(published.source));
        let unmatched = tables::unmatched(results, published);
        if !unmatched.is_empty() {
            body += &format!("<p>Not in that table: {}.</p>", escape(&unmatched.join(", ")));
        }
        for one in tables::published(results, published) {
            body += &table::of(&one);
        }
        body += "</section>";
    }
    sheets(&mut body, results, extras);
    details(&mut body, results);
    let style = STYLE.replace("/*DARK*/", DARK);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"generator\" content=\"peftk {}\">\n\
         <title>Comparison of strategies</title>\n<link rel=\"icon\" href=\"data:,\">\n<style>\n{style}</style>\n</head>\n<body>\n{body}\n\
         <script>\n{SCRIPT}</script>\n</body>\n</html>\n",
        escape(&results.version)
    )
}

/// Escaped text whose numbers keep their units on their line.
fn prose(text: &str) -> String {
    let mut text = escape(text).replace("± ", "±\u{a0}");
    for unit in ["%", "±", "GiB", "MiB", "KiB", "s", "min", "h", "points"] {
        for end in [" ", ".", ",", ";", ":", ")"] {
            text = text.replace(&format!(" {unit}{end}"), &format!("\u{a0}{unit}{end}"));
        }
    }
    text
}

/// Title, note, recommendation.
fn head(body: &mut String, results: &Results, advice: &Advice) {
    *body += "<header><h1>Comparison of strategies</h1>\
              <button type=\"button\" id=\"theme\" hidden>Colours: <span>as the system</span></button></header>\n<main>";
    if let Some(note) = &results.note {
        *body += &format!("<p class=\"note\" role=\"note\"><strong>Note.</strong> {}</p>", escape(note));
    }
    *body += "<section class=\"advice\" aria-labelledby=\"h-advice\"><h2 id=\"h-advice\">What to choose</h2>";
    let (mut main, mut rest) = (String::new(), String::new());
    for (about, sentences) in advice.grouped() {
        let texts: Vec<String> = sentences.iter().map(|text| prose(text)).collect();
        match about {
            About::Best => {
                let (first, more) =
                    texts.split_first().map_or((String::new(), String::new()), |(f, m)| (f.clone(), m.join(" ")));
                main += &format!("<p class=\"headline\">{first}</p><p>{more}</p>");
            }
            About::Progress => main += &format!("<p class=\"note\">{}</p>", texts.join(" ")),
            _ => {
                let items: Vec<String> = texts.iter().map(|text| format!("<dd>{text}</dd>")).collect();
                rest += &format!("<dt>{}</dt>{}", about.heading(), items.join(""));
            }
        }
    }
    *body += &main;
    if !rest.is_empty() {
        *body += &format!("<dl>{rest}</dl>");
    }
    *body += "</section>\n";
}

fn overview(body: &mut String, results: &Results) {
    *body += "<section aria-labelledby=\"h-results\"><h2 id=\"h-results\">Results</h2>\
              <p class=\"hint\">A column's head sorts by it. Means are over finished runs; ± is half a 95 % interval over seeds.</p>";
    *body += &table::of(&tables::overall(results));
    if results.datasets.len() > 1 {
        *body += &table::of(&tables::accuracies(results));
        *body += "<details><summary>Each data set in full</summary>";
        for one in tables::by_dataset(results) {
            *body += &table::of(&one);
        }
        *body += "</details>";
    } else {
        for one in tables::by_dataset(results) {
            *body += &table::of(&one);
        }
    }
    *body += "</section>\n";
}

fn figures(body: &mut String, charts: &[Chart]) {
    *body += "<section aria-labelledby=\"h-charts\"><h2 id=\"h-charts\">Charts</h2><div class=\"figures\">";
    for chart in charts {
        let wide = if chart.is_wide { " class=\"wide\"" } else { "" };
        *body += &format!(
            "<figure{wide}><h3>{}</h3><div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"{0}, chart\">{}</div>\
             <figcaption>{} <a href=\"charts/{name}.svg\">SVG</a> <a href=\"charts/{name}.png\">PNG</a></figcaption></figure>\n",
            escape(&chart.title),
            chart.inline(),
            prose(&chart.about),
            name = chart.name
        );
    }
    *body += "</div></section>\n";
}

/// Pictures of errors, inside the page.
fn sheets(body: &mut String, results: &Results, extras: &Extras) {
    if extras.contact_sheets.is_empty() {
        return;
    }
    *body += "<section aria-labelledby=\"h-errors\"><h2 id=\"h-errors\">Confident errors</h2>";
    for sheet in &extras.contact_sheets {
        let name = results.datasets.get(sheet.dataset).map_or("", |set| set.name.as_str());
        let (name, caption) = (escape(name), escape(&sheet.caption));
        *body += &format!(
            "<figure class=\"sheet\"><h3>{name}</h3><img alt=\"{name}: {caption}\" src=\"data:image/png;base64,{}\">\
             <figcaption>{caption}</figcaption></figure>",
            STANDARD.encode(&sheet.png)
        );
    }
    *body += "</section>\n";
}

/// Every run, trials, data sets, protocol and settings.
fn details(body: &mut String, results: &Results) {
    *body += "<section aria-labelledby=\"h-runs\"><h2 id=\"h-runs\">Every run</h2>";
    *body += &table::of(&tables::runs(results));
    *body += "<p class=\"hint\">The same without rounding: <a href=\"results.csv\">results.csv</a>, \
              <a href=\"results.json\">results.json</a>.</p></section>\n";
    if let Some(tuning) = tables::tuning(results) {
        *body += "<section aria-labelledby=\"h-tuning\"><h2 id=\"h-tuning\">Learning rates</h2>";
        *body += &format!("<p>{}</p>", escape(&results.protocol.rates));
        *body += &table::of(&tuning);
        *body += "</section>\n";
    }
    *body += "<section aria-labelledby=\"h-protocol\"><h2 id=\"h-protocol\">Protocol</h2><dl class=\"pairs\">";
    for (name, value) in tables::protocol(results) {
        *body += &format!("<dt>{name}</dt><dd>{}</dd>", escape(&value));
    }
    *body += "</dl>";
    *body += &table::of(&tables::datasets(results));
    let settings = tables::settings(results);
    *body += "<details><summary>Exact settings</summary>";
    if let Some(differing) = &settings.differing {
        *body += &table::of(differing);
    }
    if !settings.shared.is_empty() {
        *body += "<h3>Settings that all runs share</h3><dl class=\"pairs\">";
        for (name, value) in &settings.shared {
            *body += &format!("<dt><code>{}</code></dt><dd><code>{}</code></dd>", escape(name), escape(value));
        }
        *body += "</dl>";
    }
    *body += "</details></section>\n</main>";
}
