//! What the caches of the engine were good for, asked for when somebody looks.

use std::fmt::Error;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use tidemark_engine::{CacheFigures, cache_figures};

/// Of this process: the nodes of a dev cluster show the same.
#[derive(Debug)]
pub(crate) struct CacheCollector;

impl Collector for CacheCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let CacheFigures {
            statement_hits,
            statement_misses,
            page_hits,
            page_misses,
        } = cache_figures();
        for (name, help, figure) in [
            (
                "statement_cache_hits",
                "Texts of SQL that a connection had prepared already",
                statement_hits,
            ),
            (
                "statement_cache_misses",
                "Texts of SQL that had to be prepared",
                statement_misses,
            ),
            (
                "page_cache_hits",
                "Pages that a connection had in its page cache",
                page_hits,
            ),
            (
                "page_cache_misses",
                "Pages that a connection had to read from the WAL or the file",
                page_misses,
            ),
        ] {
            let name = format!("tidemark_engine_{name}");
            let counter = ConstCounter::new(figure);
            counter.encode(encoder.encode_descriptor(
                &name,
                help,
                None,
                counter.metric_type(),
            )?)?;
        }
        Ok(())
    }
}
