//! namespaces
use super::*;
