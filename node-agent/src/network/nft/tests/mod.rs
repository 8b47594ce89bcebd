//! Real packets against real tables, in network namespaces made for each test. They need root, `ip` and nf_tables.

mod node;
mod pod;
mod scene;
