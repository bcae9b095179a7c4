//! Accuracy of a classifier, with its confidence interval and the confusion behind it.

use super::MetricError;

/// The standard normal's 97.5% quantile: two-sided 95%.
const Z: f64 = 1.959_963_984_540_054;

/// A confidence interval, in percent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
}

/// How often the predicted class was the right one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accuracy {
    classes: usize,
    /// `[classes, classes]`: row the true class, column the predicted one.
    confusion: Vec<u64>,
}

impl Accuracy {
    /// Scores one predicted class per label.
    ///
    /// # Errors
    /// When there is nothing to score, the two differ in number, or an index is not below `classes`.
    pub fn new(predictions: &[u32], labels: &[u32], classes: u32) -> Result<Accuracy, MetricError> {
        if predictions.len() != labels.len() {
            return Err(MetricError::Lengths { predictions: predictions.len(), labels: labels.len() });
        }
        if labels.is_empty() {
            return Err(MetricError::Empty);
        }
        let class = |what, class: u32, example| match class < classes {
            true => Ok(class as usize),
            false => Err(MetricError::Class { what, class, example, classes }),
        };
        let width = classes as usize;
        let mut confusion = vec![0; width * width];
        for (example, (&prediction, &label)) in predictions.iter().zip(labels).enumerate() {
            let (prediction, label) = (class("prediction", prediction, example)?, class("label", label, example)?);
            confusion[label * width + prediction] += 1;
        }
        Ok(Accuracy { classes: width, confusion })
    }

    /// Examples scored, at least 1.
    pub fn examples(&self) -> u64 {
        self.confusion.iter().sum()
    }

    /// Examples whose prediction was right.
    pub fn correct(&self) -> u64 {
        (0..self.classes).map(|class| self.confusion[class * self.classes + class]).sum()
    }

    /// The accuracy, 0-100.
    pub fn percent(&self) -> f64 {
        100.0 * self.correct() as f64 / self.examples() as f64
    }

    /// Wilson's 95% score interval (Wilson 1927, "Probable inference", J. Am. Stat. Assoc. 22), which unlike the
    /// normal one stays within 0-100 and has a width at 100%.
    pub fn interval(&self) -> Interval {
        wilson(self.correct(), self.examples())
    }

    /// Counts by true class (outer) and predicted class (inner).
    pub fn confusion(&self) -> impl ExactSizeIterator<Item = &[u64]> {
        self.confusion.chunks_exact(self.classes)
    }
}

fn wilson(correct: u64, examples: u64) -> Interval {
    let (p, n) = (correct as f64 / examples as f64, examples as f64);
    let shrink = 1.0 + Z * Z / n;
    let centre = (p + Z * Z / (2.0 * n)) / shrink;
    let half = Z / shrink * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    Interval { low: 100.0 * (centre - half).max(0.0), high: 100.0 * (centre + half).min(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_percent() {
        let accuracy = Accuracy::new(&[0, 1, 2, 2, 0], &[0, 1, 2, 1, 1], 3).unwrap();
        assert_eq!((accuracy.correct(), accuracy.examples()), (3, 5));
        assert_eq!(accuracy.percent(), 60.0);
        assert_eq!(accuracy.confusion().collect::<Vec<_>>(), [&[1, 0, 0], &[1, 1, 1], &[0, 0, 1]]);
    }

    #[test]
    fn wilson_agrees_with_published_values() {
        // Newcombe 1998 (Stat. Med. 17, table I, method 3): 81/263, 15/148, 0/20 and 1/29.
        for (correct, examples, low, high) in
            [(81, 263, 25.53, 36.62), (15, 148, 6.24, 16.05), (0, 20, 0.0, 16.11), (1, 29, 0.61, 17.18)]
        {
            let interval = wilson(correct, examples);
            assert!((interval.low - low).abs() < 0.006, "{correct}/{examples}: {interval:?}");
            assert!((interval.high - high).abs() < 0.006, "{correct}/{examples}: {interval:?}");
        }
        assert!((wilson(10, 10).high - 100.0).abs() < 1e-9);
    }

    #[test]
    fn bad_input_is_an_error() {
        assert_eq!(Accuracy::new(&[], &[], 2), Err(MetricError::Empty));
        assert_eq!(Accuracy::new(&[0], &[0, 1], 2), Err(MetricError::Lengths { predictions: 1, labels: 2 }));
        let error = Accuracy::new(&[0, 2], &[0, 1], 2).unwrap_err();
        assert_eq!(error.to_string(), "prediction 2 of example 1 is not one of 2 classes");
        assert!(Accuracy::new(&[0], &[7], 2).unwrap_err().to_string().starts_with("label 7 of example 0"));
    }
}
