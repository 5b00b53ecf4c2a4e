//! A column's values in bounded memory, in pieces of equal length: values that follow each other are alike, and the
//! means of long pieces are much less so (the method of batch means).

use crate::aggregate::distribution::Distribution;

/// Pieces, at most; then each two become one.
const PIECES: usize = 64;

/// The values of one column.
#[derive(Clone, Debug)]
pub struct Series {
    pieces: Vec<f64>,
    /// Values of a piece.
    each: u64,
    open: (f64, u64),
    all: Distribution,
}

impl Default for Series {
    fn default() -> Self {
        Self {
            pieces: Vec::new(),
            each: 1,
            open: (0.0, 0),
            all: Distribution::default(),
        }
    }
}

impl Series {
    /// Takes the next value.
    pub fn add(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        self.all.add(value);
        self.open = (self.open.0 + value, self.open.1 + 1);
        if self.open.1 < self.each {
            return;
        }
        self.pieces.push(self.open.0 / self.each as f64);
        self.open = (0.0, 0);
        if self.pieces.len() >= PIECES {
            let halves = self.pieces.chunks_exact(2);
            self.pieces = halves.map(|two| f64::midpoint(two[0], two[1])).collect();
            self.each *= 2;
        }
    }

    /// The means of the pieces. Values at the end that do not fill one are left out.
    pub fn pieces(&self) -> &[f64] {
        &self.pieces
    }

    /// All values.
    pub fn all(&self) -> &Distribution {
        &self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pieces_stay_few_and_keep_the_mean() {
        let mut series = Series::default();
        (0..100_000).for_each(|value| series.add(f64::from(value)));
        assert!((PIECES / 2..PIECES).contains(&series.pieces().len()));
        let mean = series.pieces().iter().sum::<f64>() / series.pieces().len() as f64;
        assert!((mean / 50_000.0 - 1.0).abs() < 0.05, "{mean}");
        assert_eq!(series.all().count(), 100_000);
        series.add(f64::NAN);
        assert_eq!(series.all().count(), 100_000);
    }
}
