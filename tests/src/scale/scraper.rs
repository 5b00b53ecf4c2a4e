//! A Prometheus that scrapes a crowd.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::crowd::Crowd;
use crate::engine::{Engine, get, port};
use crate::wait_for;

/// A Prometheus, and the list by which it finds the nodes.
pub struct Scraper {
    /// Prometheus.
    pub engine: Engine,
    list: std::path::PathBuf,
}

impl Scraper {
    /// Starts Debian's Prometheus of `tools` in `folder`. `rules` are evaluated beside, as often as it scrapes.
    pub fn start(
        tools: &Path,
        folder: &Path,
        interval: Duration,
        rules: Option<&Path>,
        options: &[&str],
    ) -> Result<Self> {
        let list = folder.join("targets.json");
        std::fs::write(&list, "[]").context("the list of targets")?;
        let config = folder.join("prometheus.json");
        // YAML holds JSON.
        let text = serde_json::json!({
            "global": {
                "scrape_interval": format!("{}ms", interval.as_millis()),
                "scrape_timeout": format!("{}ms", interval.as_millis()),
            },
            "rule_files": rules.into_iter().collect::<Vec<_>>(),
            "scrape_configs": [{
                "job_name": "profilemate",
                // As in deploy/prometheus/scrape.yaml.
                "honor_labels": true,
                "file_sd_configs": [{ "files": [&list], "refresh_interval": "1s" }],
            }],
        });
        std::fs::write(&config, text.to_string()).context("the configuration")?;
        let data = folder.join("data");
        let engine = Engine::prometheus_with(tools, &data, &config, port(), options);
        Ok(Self { engine, list })
    }

    /// Adds nodes until there are `count`, and waits until each was scraped.
    pub fn grow(&self, crowd: &mut Crowd, count: u32) -> Result<()> {
        crowd.grow(count, &self.list)?;
        wait_for(
            "the first scrape of each node",
            Duration::from_secs(120),
            || self.number("count(profilemate_agent_info)") == Some(f64::from(count)),
        );
        Ok(())
    }

    /// The one number that a query gives.
    pub fn number(&self, query: &str) -> Option<f64> {
        let answer = self.engine.query(query);
        let value: &Value = &answer["data"]["result"][0]["value"][1];
        value.as_str()?.parse().ok()
    }

    /// A number that Prometheus tells of itself.
    pub fn own(&self, metric: &str) -> Result<f64> {
        let (_, text) = get(self.engine.port(), "/metrics")?;
        let line = text.lines().find_map(|line| {
            let rest = line.strip_prefix(metric)?;
            rest.starts_with([' ', '{'])
                .then(|| rest.rsplit(' ').next())?
        });
        let line = line.with_context(|| format!("Prometheus tells no {metric}"))?;
        line.parse().with_context(|| metric.to_owned())
    }
}
