//! Medians with their spread, and the table that shows them.

/// What several repetitions measured.
#[derive(Clone, Debug, Default)]
pub struct Figures(Vec<f64>);

impl Figures {
    pub fn push(&mut self, figure: f64) {
        self.0.push(figure);
    }

    /// Lowest, middle and highest.
    pub fn spread(&self) -> Option<(f64, f64, f64)> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        Some((*sorted.first()?, *sorted.get(sorted.len() / 2)?, *sorted.last()?))
    }

    pub fn show(&self) -> String {
        match self.spread() {
            Some((low, median, high)) => format!("{} ({}..{})", short(median), short(low), short(high)),
            None => "-".to_owned(),
        }
    }
}

fn short(figure: f64) -> String {
    match figure.abs() {
        0.0..10.0 => format!("{figure:.2}"),
        10.0..1000.0 => format!("{figure:.1}"),
        _ => format!("{:.1}k", figure / 1e3),
    }
}

/// One line of the table: our figure, the peer's, and their ratio repetition by repetition.
#[derive(Clone, Debug, Default)]
pub struct Line {
    pub what: String,
    pub unit: &'static str,
    pub ours: Figures,
    pub peer: Figures,
    pub ratios: Figures,
    /// What the design promises of the ratio, or of our figure where there is no peer.
    pub floor: &'static str,
    /// What the design wants to reach.
    pub aim: &'static str,
}

impl Line {
    pub fn new(what: &str, unit: &'static str, floor: &'static str, aim: &'static str) -> Self {
        Self { what: what.to_owned(), unit, floor, aim, ..Self::default() }
    }

    pub fn pair(&mut self, ours: f64, peer: f64) {
        self.ours.push(ours);
        self.peer.push(peer);
        self.ratios.push(ours / peer);
    }
}

/// Prints the lines as a Markdown table.
pub fn print(lines: &[Line]) {
    println!("| what | unit | ours, median (low..high) | peer | ratio | floor | aim |");
    println!("|---|---|---|---|---|---|---|");
    for line in lines {
        let (ours, peer, ratios) = (line.ours.show(), line.peer.show(), line.ratios.show());
        println!("| {} | {} | {ours} | {peer} | {ratios} | {} | {} |", line.what, line.unit, line.floor, line.aim);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_stands_between_the_extremes() {
        let mut figures = Figures::default();
        [3.0, 1.0, 2.0].into_iter().for_each(|figure| figures.push(figure));
        assert_eq!(figures.spread(), Some((1.0, 2.0, 3.0)));
        assert_eq!(figures.show(), "2.00 (1.00..3.00)");
    }
}
