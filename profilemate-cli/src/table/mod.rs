//! The tables of a session. Each is declared once, in its own file: row, columns, units and docs.
//!
//! The leading columns of the first eleven are a compatibility surface; new columns are only ever appended.

pub mod batch_utilization;
pub mod cell;
pub mod cpu_operations_timing;
pub mod cuda_graph_captures;
pub mod cuda_graph_timeline;
pub mod cuda_graph_usage;
pub mod encoder_decoder_timing;
pub mod forward_pass_timing;
pub mod kv_cache_evictions;
pub mod kv_cache_usage;
pub mod methods;
pub mod moe_expert_coselection;
pub mod moe_expert_selection;
pub mod moe_expert_timing;
pub mod moe_load_imbalance;
pub mod preemption_events;
pub mod read;
pub mod request_lifecycle;
pub mod speculative_decoding;

use cell::Cell;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds since the session's start.
    Moment,
    /// A duration in seconds.
    Seconds,
    /// A duration in milliseconds.
    Milliseconds,
    /// A duration in microseconds.
    Microseconds,
    /// 0 to 100.
    Percent,
    /// Tokens.
    Tokens,
    /// Sequences of a batch.
    Sequences,
    /// Requests.
    Requests,
    /// KV cache blocks.
    Blocks,
    /// Tokens a second.
    Rate,
    /// A plain count.
    Count,
    /// A configured limit.
    Limit,
    /// A number that names something.
    Identity,
    /// Text, or `True` and `False`.
    Text,
}

impl Unit {
    /// In words, for documents.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Moment => "s since the session's start",
            Self::Seconds => "s",
            Self::Milliseconds => "ms",
            Self::Microseconds => "us",
            Self::Percent => "%",
            Self::Tokens => "tokens",
            Self::Sequences => "sequences",
            Self::Requests => "requests",
            Self::Blocks => "blocks",
            Self::Rate => "tokens/s",
            Self::Count => "count",
            Self::Limit => "limit",
            Self::Identity => "id",
            Self::Text => "text",
        }
    }

    /// Whether mean and percentiles of such a column say something.
    pub const fn is_measured(self) -> bool {
        !matches!(
            self,
            Self::Moment | Self::Limit | Self::Identity | Self::Text
        )
    }
}

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Name in the header.
    pub name: &'static str,
    /// What it holds.
    pub doc: &'static str,
    /// Its unit.
    pub unit: Unit,
    /// What kind of value stands in it.
    pub kind: read::Kind,
}

/// A row of a declared table.
pub trait Row {
    /// File name without `.csv`.
    const FILE: &'static str;
    /// What the table holds.
    const DOC: &'static str;
    /// The columns, in order.
    const COLUMNS: &'static [Column];

    /// Visits the cells in the order of the columns.
    fn cells(&self, visit: &mut dyn FnMut(&dyn Cell));

    /// Reads a row from the texts of its cells, asked for in the order of the columns; `None` for a column that is not
    /// there. The error is the index of a column whose text cannot be read.
    fn read<'a>(text: &mut dyn FnMut(usize) -> Option<&'a str>) -> Result<Self, usize>
    where
        Self: Sized;
}

/// Declares one table: the row's struct and its [`Row`] implementation.
macro_rules! table {
    ($(#[doc = $doc:literal])+ $file:literal => $row:ident {
        $( $(#[doc = $column_doc:literal])+ $column:ident: $cell:ty [$unit:ident], )+
    }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $row {
            $( $(#[doc = $column_doc])+ pub $column: $cell, )+
        }

        impl $crate::table::Row for $row {
            const FILE: &'static str = $file;
            const DOC: &'static str = concat!($($doc),+).trim_ascii();
            const COLUMNS: &'static [$crate::table::Column] = &[ $(
                $crate::table::Column {
                    name: stringify!($column),
                    doc: concat!($($column_doc),+).trim_ascii(),
                    unit: $crate::table::Unit::$unit,
                    kind: <$cell as $crate::table::read::ReadCell>::KIND,
                },
            )+ ];

            fn cells(&self, visit: &mut dyn FnMut(&dyn $crate::table::cell::Cell)) {
                $( visit(&self.$column); )+
            }

            fn read<'a>(
                text: &mut dyn FnMut(usize) -> Option<&'a str>,
            ) -> Result<Self, usize> {
                let mut index = 0..;
                Ok(Self { $( $column: {
                    let index = index.next().unwrap_or(usize::MAX);
                    match text(index) {
                        Some(text) => {
                            <$cell as $crate::table::read::ReadCell>::read(text).ok_or(index)?
                        }
                        None => <$cell as $crate::table::read::ReadCell>::absent(),
                    }
                }, )+ })
            }
        }
    };
}
pub(crate) use table;

/// A table without its rows.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// File name without `.csv`.
    pub file: &'static str,
    /// What the table holds.
    pub doc: &'static str,
    /// The columns, in order.
    pub columns: &'static [Column],
}

/// Declares the list of all tables: [`AnyRow`], one variant a table, and [`TABLES`], in the same order.
macro_rules! tables {
    ($( $file:ident :: $row:ident, )+) => {
        /// A row of any table.
        #[derive(Clone, Debug, PartialEq)]
        pub enum AnyRow {
            $( #[doc = concat!("A row of `", stringify!($file), ".csv`.")] $row($file::$row), )+
        }

        /// All tables.
        pub const TABLES: &[Table] = &[ $(
            Table { file: $file::$row::FILE, doc: $file::$row::DOC, columns: $file::$row::COLUMNS },
        )+ ];

        #[derive(Clone, Copy)]
        enum Index { $( $row, )+ }

        impl AnyRow {
            /// Index of its table in [`TABLES`].
            pub const fn table(&self) -> usize {
                match self { $( Self::$row(_) => Index::$row as usize, )+ }
            }

            /// Visits the cells in the order of the columns.
            pub fn cells(&self, visit: &mut dyn FnMut(&dyn Cell)) {
                match self { $( Self::$row(row) => row.cells(visit), )+ }
            }

            /// Reads a row of the table at `index` of [`TABLES`]; see [`Row::read`]. `None` if there is no such table.
            pub fn read<'a>(
                index: usize,
                text: &mut dyn FnMut(usize) -> Option<&'a str>,
            ) -> Option<Result<Self, usize>> {
                let row = [ $( Index::$row, )+ ].into_iter().nth(index)?;
                Some(match row {
                    $( Index::$row => <$file::$row as Row>::read(text).map(Self::from), )+
                })
            }
        }

        $( impl From<$file::$row> for AnyRow {
            fn from(row: $file::$row) -> Self {
                Self::$row(row)
            }
        } )+
    };
}

tables! {
    cuda_graph_captures::CudaGraphCapture,
    cuda_graph_usage::CudaGraphUse,
    kv_cache_usage::KvCacheUse,
    kv_cache_evictions::KvCacheEviction,
    moe_expert_selection::MoeExpertSelection,
    moe_expert_timing::MoeExpertTime,
    forward_pass_timing::ForwardPass,
    cpu_operations_timing::CpuOperation,
    batch_utilization::BatchUse,
    preemption_events::PreemptionEvent,
    encoder_decoder_timing::EncoderCall,
    cuda_graph_timeline::CudaGraphReplay,
    request_lifecycle::RequestLifecycle,
    moe_expert_coselection::MoeExpertCoselection,
    moe_load_imbalance::MoeLoadImbalance,
    speculative_decoding::SpeculativeStep,
    methods::MethodCall,
}

/// Index of a table in [`TABLES`] by its file name without `.csv`.
pub fn index_of(file: &str) -> Option<usize> {
    TABLES.iter().position(|table| table.file == file)
}

#[cfg(test)]
mod tests;
