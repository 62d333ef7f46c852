//! What a node takes from the world, as the simulation has it.

pub(crate) mod baton;
pub(crate) mod disk;
pub(crate) mod handles;
pub(crate) mod net;
