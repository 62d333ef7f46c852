//! What the process counts by itself, asked for when somebody looks: what the caches of the engine were good for, and
//! log lines that were dropped.

use std::fmt::Error;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use tidemark_engine::{CacheFigures, cache_figures};

use crate::logging;

/// Of this process: the nodes of a dev cluster show the same.
#[derive(Debug)]
pub(crate) struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let CacheFigures {
            statement_hits,
            statement_misses,
            page_hits,
            page_misses,
        } = cache_figures();
        for (name, help, figure) in [
            (
                "tidemark_engine_statement_cache_hits",
                "Texts of SQL that a connection had prepared already",
                statement_hits,
            ),
            (
                "tidemark_engine_statement_cache_misses",
                "Texts of SQL that had to be prepared",
                statement_misses,
            ),
            (
                "tidemark_engine_page_cache_hits",
                "Pages that a connection had in its page cache",
                page_hits,
            ),
            (
                "tidemark_engine_page_cache_misses",
                "Pages that a connection had to read from the WAL or the file",
                page_misses,
            ),
            (
                "tidemark_dropped_log_lines",
                "Log lines that were not written, as too many waited for whoever reads them",
                logging::dropped_lines(),
            ),
        ] {
            let counter = ConstCounter::new(figure);
            counter.encode(encoder.encode_descriptor(
                name,
                help,
                None,
                counter.metric_type(),
            )?)?;
        }
        Ok(())
    }
}
