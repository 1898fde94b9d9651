//! `${VAR}` in values.

use std::ffi::OsString;

/// Puts variables of the environment in the place of their names: `${NAME}`. `$$` is a dollar.
///
/// # Errors
/// Which variable is not set, or what a dollar must be followed by.
pub fn expand(
    text: &str,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            expanded.push('$');
            rest = after;
            continue;
        }
        let name = after.strip_prefix('{').and_then(|after| after.split_once('}'));
        let (name, after) = name.filter(|(name, _)| is_name(name)).ok_or(
            "a dollar begins a variable, as in ${NAME}; a dollar that is meant is written $$",
        )?;
        let value = environment(name).ok_or_else(|| format!("the variable {name} is not set"))?;
        let value = value.into_string();
        expanded.push_str(&value.map_err(|_text| format!("the variable {name} is not UTF-8"))?);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn is_name(name: &str) -> bool {
    !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Result<String, String> {
        expand(text, |name| match name {
            "HOME" => Some("/home/me".into()),
            "PRICE" => Some("$5 ${HOME}".into()),
            "EMPTY" => Some(OsString::new()),
            _ => None,
        })
    }

    #[test]
    fn variables_and_dollars() {
        for (text, expected) in [
            ("plain", "plain"),
            ("${HOME}/a${EMPTY}b/${HOME}", "/home/me/ab//home/me"),
            ("$$5, $${HOME}, 10$$", "$5, ${HOME}, 10$"),
            // What a variable holds is not looked at again.
            ("<${PRICE}>", "<$5 ${HOME}>"),
        ] {
            assert_eq!(expanded(text).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn what_is_not_a_variable_is_refused() {
        assert_eq!(expanded("a ${NOWHERE}").unwrap_err(), "the variable NOWHERE is not set");
        for text in ["$", "$HOME", "${HOME", "${}", "${a b}", "${1}", "5$"] {
            assert!(expanded(text).unwrap_err().contains("written $$"), "{text}");
        }
    }
}
