//! One verb per part of the plan, called from the process chain.
