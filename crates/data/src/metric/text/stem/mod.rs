//! The two stemmers that the tools use. Both take English in lower case; what they do not know they leave alone.

mod porter;
mod porter2;

pub use porter::stem as porter;
pub use porter2::stem as porter2;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::Value;

    use super::*;

    #[test]
    fn stems_are_those_of_nltk_and_of_meteor() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/stems.json");
        let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        for entry in file.as_array().unwrap() {
            let word = entry[0].as_str().unwrap();
            if let Some(expected) = entry[1].as_str() {
                assert_eq!(porter(word), expected, "{word}");
            }
            assert_eq!(porter2(word), entry[2].as_str().unwrap(), "{word}");
        }
    }
}
