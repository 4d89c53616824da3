//! The life of a root as a model: every order in which gates, istiods, conductors, operators and faults can act. What
//! comes next is said by the product's own rule, and what a step makes of a record by the product's own change, on real
//! certificates.

pub mod records;
pub mod rescue;
pub mod rotation;
pub mod world;
