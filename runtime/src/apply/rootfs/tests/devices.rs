//! devices
use super::*;
