//! An answer of the HTTP API (<https://prometheus.io/docs/prometheus/latest/querying/api/>) as series. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Error;

/// Labels of a series, by name.
pub type Labels = BTreeMap<String, String>;

/// A series and its values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// Labels, without the metric's name.
    pub labels: Labels,
    /// Seconds since 1970 by the engine's clock, and the value. Values that are no number are left out.
    pub points: Vec<(f64, f64)>,
}

impl Series {
    /// The last value.
    pub fn last(&self) -> Option<f64> {
        self.points.last().map(|point| point.1)
    }

    /// A label, empty where there is none, as the engine sees it.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// What the engine answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The series; a scalar is one without labels.
    pub series: Vec<Series>,
    /// What the engine says limits the answer, such as a store that did not reply.
    pub warnings: Vec<String>,
}

#[derive(Deserialize)]
struct Body {
    status: String,
    data: Option<Content>,
    #[serde(default, rename = "errorType")]
    error_type: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    warnings: Option<Vec<String>>,
    /// VictoriaMetrics says here that a part of its storage did not answer.
    #[serde(default, rename = "isPartial")]
    partial: bool,
}

#[derive(Deserialize)]
struct Content {
    #[serde(default)]
    result: Outcome,
}

/// A list of series, or of a scalar's time and value.
#[derive(Deserialize)]
#[serde(untagged)]
enum Outcome {
    Series(Vec<Told>),
    Scalar(Point),
}

impl Default for Outcome {
    fn default() -> Self {
        Self::Series(Vec::new())
    }
}

#[derive(Deserialize)]
struct Told {
    #[serde(default)]
    metric: Labels,
    value: Option<Point>,
    values: Option<Vec<Point>>,
}

type Point = (f64, String);

fn number((at, text): &Point) -> Option<(f64, f64)> {
    let value: f64 = text.parse().ok()?;
    (at.is_finite() && value.is_finite()).then_some((*at, value))
}

/// Reads an answer's body.
pub fn read(body: &[u8]) -> Result<Answer, Error> {
    let body: Body = serde_json::from_slice(body).map_err(|source| Error::NotTheApi { source })?;
    if body.status != "success" {
        return Err(Error::Refused {
            kind: body.error_type,
            text: body.error,
        });
    }
    let mut warnings = body.warnings.unwrap_or_default();
    if body.partial {
        warnings.push("the answer is partial: a part of the storage did not reply".to_owned());
    }
    let series = match body.data.map(|data| data.result).unwrap_or_default() {
        Outcome::Scalar(point) => vec![Series {
            labels: Labels::new(),
            points: number(&point).into_iter().collect(),
        }],
        Outcome::Series(all) => all.into_iter().map(series).collect(),
    };
    Ok(Answer { series, warnings })
}

fn series(told: Told) -> Series {
    let mut labels = told.metric;
    labels.remove("__name__");
    let points = told.value.iter().chain(told.values.iter().flatten());
    Series {
        labels,
        points: points.filter_map(number).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_matrices_and_scalars_are_read() {
        let vector = br#"{"status":"success","data":{"resultType":"vector","result":[
            {"metric":{"__name__":"up","instance":"a"},"value":[10.5,"1"]},
            {"metric":{"instance":"b"},"value":[10.5,"NaN"]}]}}"#;
        let answer = read(vector).unwrap();
        assert_eq!(answer.series[0].last(), Some(1.0));
        assert_eq!(answer.series[0].label("instance"), "a");
        assert_eq!(answer.series[0].label("__name__"), "");
        assert_eq!(answer.series[1].last(), None);
        let matrix = br#"{"status":"success","data":{"resultType":"matrix","result":[
            {"metric":{},"values":[[1,"0.5"],[2,"+Inf"],[3,"2e3"]]}]}}"#;
        assert_eq!(
            read(matrix).unwrap().series[0].points,
            [(1.0, 0.5), (3.0, 2000.0)]
        );
        let scalar =
            br#"{"status":"success","data":{"resultType":"scalar","result":[7.25,"7.25"]}}"#;
        assert_eq!(read(scalar).unwrap().series[0].last(), Some(7.25));
    }

    #[test]
    fn partial_answers_say_so() {
        let thanos = br#"{"status":"success","data":{"resultType":"vector","result":[]},"warnings":["store x: timeout"]}"#;
        assert_eq!(read(thanos).unwrap().warnings, ["store x: timeout"]);
        let victoria =
            br#"{"status":"success","isPartial":true,"data":{"resultType":"vector","result":[]}}"#;
        assert_eq!(read(victoria).unwrap().warnings.len(), 1);
    }

    #[test]
    fn refusals_and_strangers_are_told_apart() {
        let refused = br#"{"status":"error","errorType":"bad_data","error":"parse error"}"#;
        assert!(matches!(read(refused), Err(Error::Refused { .. })));
        assert!(matches!(
            read(b"<html>login</html>"),
            Err(Error::NotTheApi { .. })
        ));
    }
}
