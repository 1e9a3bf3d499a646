//! A door without a panel.

use super::{Display, DisplayError, Screen};

/// Shows nothing, and never fails.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDisplay;

impl Display for NoDisplay {
    fn show(&mut self, _screen: &Screen) -> Result<(), DisplayError> {
        Ok(())
    }
}
