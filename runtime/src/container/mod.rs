//! What outlives the chain: the state of a container on disk.
