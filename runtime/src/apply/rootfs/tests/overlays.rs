//! overlays
use super::*;
