//! `report.md`: the page's words and tables as GitHub renders them, with links to the charts.

use super::Extras;
use super::charts::Chart;
use super::tables::{self, Cell, Table, Tone};
use crate::compare::advice::Advice;
use crate::compare::results::Results;

/// The whole file.
pub fn of(results: &Results, advice: &Advice, charts: &[Chart], extras: &Extras) -> String {
    let mut text = "# Comparison of strategies\n\n".to_owned();
    if let Some(note) = &results.note {
        text += &format!("> **Note:** {}\n\n", escaped(note));
    }
    text += "## What to choose\n\n";
    for (about, sentences) in advice.grouped() {
        text += &format!("**{}.** {}\n\n", about.heading(), escaped(&sentences.join(" ")));
    }
    text += "## Results\n\n";
    table(&mut text, &tables::overall(results));
    if results.datasets.len() > 1 {
        table(&mut text, &tables::accuracies(results));
    }
    text += "## Charts\n\n";
    for chart in charts {
        let (title, about) = (escaped(&chart.title), escaped(&chart.about));
        text += &format!("### {title}\n\n![{title}](charts/{}.svg)\n\n{about}\n\n", chart.name);
    }
    if let Some(published) = extras.published {
        text += &format!("## Published results\n\n{}\n\n", escaped(published.source));
        let unmatched = tables::unmatched(results, published);
        if !unmatched.is_empty() {
            text += &format!("Not in that table: {}.\n\n", escaped(&unmatched.join(", ")));
        }
        for one in tables::published(results, published) {
            table(&mut text, &one);
        }
    }
    text += "## Details\n\n";
    for one in tables::by_dataset(results) {
        table(&mut text, &one);
    }
    table(&mut text, &tables::runs(results));
    if let Some(tuning) = tables::tuning(results) {
        table(&mut text, &tuning);
    }
    text += "## Protocol and settings\n\n";
    for (name, value) in tables::protocol(results) {
        text += &format!("- {name}: {}\n", escaped(&value));
    }
    text += "\n";
    table(&mut text, &tables::datasets(results));
    let settings = tables::settings(results);
    if let Some(differing) = &settings.differing {
        table(&mut text, differing);
    }
    if !settings.shared.is_empty() {
        text += "### Settings that all runs share\n\n";
        for (name, value) in &settings.shared {
            text += &format!("- {}: {}\n", escaped(name), escaped(value));
        }
        text += "\n";
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

fn table(text: &mut String, table: &Table) {
    *text += &format!("### {}\n\n", escaped(&table.caption));
    let names: Vec<String> = table.columns.iter().map(|column| escaped(&column.name)).collect();
    let sides: Vec<&str> = table.columns.iter().map(|column| if column.is_number { "---:" } else { "---" }).collect();
    *text += &format!("| {} |\n| {} |\n", names.join(" | "), sides.join(" | "));
    for row in table.rows.iter().chain(&table.foot) {
        let cells: Vec<String> = row.iter().map(cell).collect();
        *text += &format!("| {} |\n", cells.join(" | "));
    }
    *text += "\n";
}

fn cell(cell: &Cell) -> String {
    let text = escaped(&cell.text);
    if cell.tone == Tone::Best { format!("**{text}**") } else { text }
}

/// Text that stays what it is: on one line, and nothing of it read as Markdown or HTML.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\\' | '|' | '*' | '_' | '`' | '[' | ']' | '#' | '~' | '$' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_read_as_markup() {
        assert_eq!(escaped("a|b <i> *c* _d_ [e](f)\ng"), "a\\|b &lt;i&gt; \\*c\\* \\_d\\_ \\[e\\](f) g");
    }
}
