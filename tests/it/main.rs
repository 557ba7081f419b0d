//! The integration tests, all in one binary so that the big dependencies are linked once. They run the real `smelt`.

mod architecture;
mod bad_input;
mod crash;
mod files;
mod python;
mod support;
