//! What was meant to be reached, and whether it was.

use std::cell::RefCell;

/// Which side of the budget is the good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    AtMost,
    AtLeast,
}

/// Rows of the table, in the order in which they were measured.
#[derive(Debug, Default)]
pub(crate) struct Budgets(RefCell<Vec<String>>);

impl Budgets {
    /// Notes a measured figure of ours against its budget.
    pub(crate) fn note(&self, what: &str, bound: Bound, budget: f64, measured: f64, unit: &str) {
        let (sign, held) = match bound {
            Bound::AtMost => ("≤", measured <= budget),
            Bound::AtLeast => ("≥", measured >= budget),
        };
        let held = if held { "held" } else { "**not held**" };
        let row = format!("| {what} | {sign} {budget} {unit} | {measured:.2} {unit} | {held} |\n");
        self.0.borrow_mut().push(row);
    }

    /// The table.
    pub(crate) fn table(&self) -> String {
        let rows = self.0.borrow().concat();
        format!("### Budgets\n\n| what | budget | measured | |\n|---|---|---|---|\n{rows}\n")
    }
}
