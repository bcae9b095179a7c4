//! The regular expressions of the tools' tokenizers, which all look at one, two or three characters.

/// Replaces from left to right, without overlap, each run of `N` characters that `matches`. In the template a digit
/// `1` to `N` stands for that character of the run, and all else for itself.
///
/// That a character belongs to one run at most is seen in the scores: `,,` is not separated in one pass.
pub fn substitute<const N: usize>(text: &[char], matches: impl Fn([char; N]) -> bool, template: &str) -> Vec<char> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        match rest.split_first_chunk::<N>() {
            Some((&run, after)) if matches(run) => {
                out.extend(template.chars().map(|c| match c.to_digit(10) {
                    Some(group) => run[group as usize - 1],
                    None => c,
                }));
                rest = after;
            }
            _ => {
                out.push(first);
                rest = tail;
            }
        }
    }
    out
}
