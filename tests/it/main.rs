//! The service in this process, against stand-ins that can lie, lose an answer or cut it.

#![allow(unreachable_pub, reason = "a test binary has no API")]

mod adopt;
mod bodies;
mod certificates;
mod client_ca;
mod command;
mod contradicted;
mod converging;
mod development;
mod doctor;
mod documents;
mod events;
mod explain;
mod external_secrets;
mod fingerprint;
mod flux;
mod gate;
mod hostile;
mod kubernetes;
mod limits;
mod manifests;
mod memory;
mod metrics;
mod mutate;
mod once;
mod page;
mod product;
mod proxies;
mod quiet;
mod reviews;
mod root_change;
mod rotation;
mod self_test;
mod server;
mod serving_files;
mod shell;
mod usage;
mod vault;
mod vault_addresses;
mod vault_login;
mod vault_read;
mod vault_transport;
mod vault_write;
mod verify;
mod world;
