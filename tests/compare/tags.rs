//! Enough of HTML and XML to notice a tag that is not closed and a text that was not escaped.

/// Elements of HTML that have no end tag.
const VOID: [&str; 4] = ["meta", "link", "img", "br"];

/// What is wrong with a page or a drawing, if anything is.
pub fn problem(text: &str) -> Option<String> {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('<') {
        if let Some(wrong) = bad_reference(before) {
            return Some(format!("'{wrong}' is no reference"));
        }
        let Some((tag, after)) = after.split_once('>') else { return Some(format!("'<{after}' does not end")) };
        rest = after;
        if tag.starts_with('!') {
            continue;
        }
        if tag.matches('"').count() % 2 == 1 {
            return Some(format!("<{tag}>: a quote does not end"));
        }
        let name = tag.trim_start_matches('/').split([' ', '/', '\n']).next().unwrap_or("");
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return Some(format!("<{tag}> is no tag"));
        }
        if tag.starts_with('/') {
            if open.pop() != Some(name) {
                return Some(format!("<{tag}> closes nothing"));
            }
        } else if name == "script" || name == "style" {
            let Some((_, after)) = rest.split_once(&format!("</{name}>")) else {
                return Some(format!("<{tag}> stays open"));
            };
            rest = after;
        } else if !tag.ends_with('/') && !VOID.contains(&name) {
            open.push(name);
        }
    }
    open.last().map(|name| format!("<{name}> stays open"))
}

fn bad_reference(text: &str) -> Option<&str> {
    text.split('&').skip(1).find(|part| {
        let name = part.split(';').next().unwrap_or("");
        !(part.contains(';') && name.len() <= 6 && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '#'))
    })
}
