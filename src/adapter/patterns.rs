//! Matching module names as peft does.

use regex_lite::Regex;

/// Compiles a key of `rank_pattern` or `alpha_pattern`: a regular expression that must match the end of the module's
/// name, all of it or from after a dot.
pub(super) fn suffix(key: &str) -> Result<Regex, String> {
    compile(&format!("^(?:.*\\.)?(?:{key})$"), key)
}

/// Compiles a regular expression that must match the whole name.
pub(super) fn whole(pattern: &str) -> Result<Regex, String> {
    compile(&format!("^(?:{pattern})$"), pattern)
}

fn compile(expression: &str, shown: &str) -> Result<Regex, String> {
    // A bracket in the key could close the group around it and match something else.
    Regex::new(shown)
        .and_then(|_| Regex::new(expression))
        .map_err(|e| format!("{} is not a regular expression that is understood here ({e})", crate::io::quoted(shown)))
}

/// The value of the first pattern that matches `names[0]`; if none does, of the first that matches `names[1]`, and so on.
/// A key that does not compile matches nothing: configurations are checked before they are used.
pub(super) fn first_match<'a, V>(patterns: &'a [(String, V)], names: &[String]) -> Option<&'a V> {
    let compiled: Vec<_> = patterns.iter().filter_map(|(key, value)| Some((suffix(key).ok()?, value))).collect();
    names.iter().find_map(|name| compiled.iter().find(|(regex, _)| regex.is_match(name)).map(|(_, value)| *value))
}

/// Whether `name` is `suffix` or ends in it after a dot.
pub(super) fn ends_in(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_match_at_the_end_after_a_dot() {
        let names = ["dinov2.encoder.layer.1.attention.v_proj".to_owned()];
        let hit = |key: &str| first_match(&[(key.to_owned(), 1)], &names).is_some();
        assert!(hit("v_proj") && hit("layer.1.attention.v_proj") && hit(r"layer\.\d+\.attention\.[qv]_proj"));
        assert!(hit("q_proj|v_proj") && hit(&names[0]) && hit("^dinov2.*"));
        assert!(!hit("proj") && !hit("attention") && !hit("layer.2.*v_proj"));
    }

    #[test]
    fn the_first_key_wins_and_the_first_name_before_it() {
        let keys = [("b".to_owned(), 1), ("a.*".to_owned(), 2), ("c".to_owned(), 3)];
        assert_eq!(first_match(&keys, &["a.c".to_owned(), "b".to_owned()]), Some(&2));
        assert_eq!(first_match(&keys, &["x".to_owned(), "b".to_owned()]), Some(&1));
        assert_eq!(first_match(&keys, &["x".to_owned()]), None);
    }

    #[test]
    fn a_bracket_cannot_leave_its_group() {
        assert!(suffix("a)|(b").is_err());
        assert!(whole("a)|(b").is_err());
        assert!(suffix("(?=a)b").is_err());
    }
}
