//! masks
use super::*;
