//! A table of the page. Heads are buttons: a click or a key sorts.

use super::super::charts::escape;
use super::super::tables::{Cell, Table, Tone};

/// The table in a box that scrolls by itself.
pub fn of(table: &Table) -> String {
    let (id, caption) = (&table.id, escape(&table.caption));
    let head: String = table
        .columns
        .iter()
        .map(|column| {
            let class = if column.is_number { " class=\"n\"" } else { "" };
            format!(
                "<th scope=\"col\"{class} aria-sort=\"none\"><button type=\"button\">{}</button></th>",
                escape(&column.name)
            )
        })
        .collect();
    let rows: String = table.rows.iter().map(|row| line(table, row)).collect();
    let foot = table.foot.as_ref().map_or(String::new(), |row| format!("<tfoot>{}</tfoot>", line(table, row)));
    format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-labelledby=\"t-{id}\"><table id=\"{id}\"><caption id=\"t-{id}\">{caption}\
         </caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody>{foot}</table></div>\n"
    )
}

fn line(table: &Table, row: &[Cell]) -> String {
    let mut text = "<tr>".to_owned();
    for (i, (cell, column)) in row.iter().zip(&table.columns).enumerate() {
        let mut classes = Vec::new();
        if column.is_number {
            classes.push("n");
        }
        match cell.tone {
            Tone::Plain => {}
            Tone::Best => classes.push("best"),
            Tone::Faint => classes.push("faint"),
            Tone::Bad => classes.push("bad"),
        }
        // Words that are a sentence wrap; names and numbers do not.
        let length = cell.text.chars().count();
        if cell.key.is_none() && i > 0 && length > 40 {
            classes.push("long");
        } else if i == 0 && length > 20 {
            classes.push("wrap");
        }
        let class = if classes.is_empty() { String::new() } else { format!(" class=\"{}\"", classes.join(" ")) };
        let key = cell.key.map_or(String::new(), |key| format!(" data-v=\"{key}\""));
        let content = escape(&cell.text);
        text += &if i == 0 {
            format!("<th scope=\"row\"{class}{key}>{content}</th>")
        } else {
            format!("<td{class}{key}>{content}</td>")
        };
    }
    text + "</tr>"
}
