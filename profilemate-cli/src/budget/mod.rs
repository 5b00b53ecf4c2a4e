//! `--budget`: what tracing may cost the target, and what is given up to stay within it. Pure; the session measures and
//! carries out.

pub mod controller;
pub mod ladder;
pub mod price;

/// Reads a budget: `1%`, `0.5 %`, `2`.
pub fn parse(text: &str) -> Result<f64, String> {
    let number = text.trim().trim_end_matches('%').trim_end();
    number
        .parse::<f64>()
        .ok()
        .filter(|percent| percent.is_finite() && *percent > 0.0 && *percent <= 100.0)
        .ok_or_else(|| format!("`{text}` is not a budget such as `1%`, above 0 and at most 100"))
}

/// The order in which methods are shed, as lines of a plan.
pub fn text(percent: f64) -> String {
    format!(
        "\nbudget: {percent} % of the time in steps; where tracing costs a process more, these are counted and no longer \
         recorded, in this order:\n{}\n",
        ladder::text()
    )
}

/// The same as JSON.
pub fn json(percent: f64) -> serde_json::Value {
    let rungs = ladder::LADDER
        .iter()
        .map(|rung| serde_json::json!({ "name": rung.name, "lost": rung.doc }));
    serde_json::json!({ "percent": percent, "order": rungs.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_percentages() {
        assert_eq!(parse("1%"), Ok(1.0));
        assert_eq!(parse("0.25 %"), Ok(0.25));
        assert_eq!(parse("3"), Ok(3.0));
        for text in ["", "%", "-1%", "0%", "101%", "much", "inf", "nan"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
