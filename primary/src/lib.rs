//! The cell that holds the primary copy: consensus, commit pipeline, catalogue, shipping.
