//! Watermarks of models, and what `emit: on_close` demands of the streams it waits for.

use arrow::datatypes::{DataType, Schema};

use super::compile::{Compiler, Known};
use super::fault::Fault;
use super::lateness::Stream;
use super::lower::Slots;
use super::on_close;
use super::relation::{Input, Relation};
use crate::error::did_you_mean;
use crate::project::{Model, OnViolation};

impl Compiler<'_> {
    /// What `emit: on_close` demands of a model beside its query.
    pub(super) fn check_on_close(&self, model: &Model, streams: &[Stream<'_>], slots: &Slots) -> Result<(), Fault> {
        let violations: Vec<OnViolation> = model.expectations.iter().map(|e| e.on_violation).collect();
        let all = |is: &dyn Fn(&Relation) -> bool| streams.iter().all(|s| is(&slots.inputs[s.slot].relation));
        let known = |is: fn(&Known) -> bool| all(&|relation| self.known.get(relation).is_some_and(is));
        on_close::check(&on_close::Demands {
            is_streaming_table: !streams.is_empty(),
            reads_table: all(&|relation| matches!(relation, Relation::Model(_))),
            append_only: known(|k| k.append_only) || model.config.skip_change_commits,
            has_watermark: known(|k| k.has_watermark),
            violations: &violations,
        })
    }

    /// Whether it is known how far event time has come in the model's rows: it says so itself, or passes a stream's on.
    pub(super) fn check_watermark(
        &self,
        model: &Model,
        schema: &Schema,
        stream: Option<usize>,
        slots: &Slots,
    ) -> Result<bool, Fault> {
        let Some(watermark) = &model.config.watermark else {
            let passed = stream.and_then(|slot| self.known.get(&slots.inputs[slot].relation));
            return Ok(passed.is_some_and(|k| k.has_watermark));
        };
        let column = schema.fields().iter().find(|f| f.name().eq_ignore_ascii_case(&watermark.column));
        let is_time = |t: &DataType| matches!(t, DataType::Timestamp(..) | DataType::Date32);
        match column {
            Some(field) if is_time(field.data_type()) => Ok(true),
            Some(field) => {
                let message = format!("`watermark`: `{}` is no TIMESTAMP or DATE", field.name());
                Err(Fault::new("type", message).hint("cast the column in the query"))
            }
            None => {
                let message = format!("`watermark`: `{}` has no column `{}`", model.name, watermark.column);
                let fault = Fault::new("unknown-column", message);
                Err(match did_you_mean(&watermark.column, schema.fields().iter().map(|f| f.name().as_str())) {
                    Some(near) => fault.hint(format!("did you mean `{near}`?")),
                    None => fault.hint("select the column, or name another"),
                })
            }
        }
    }

    /// The column whose watermark a model has: its own, or the one its stream's rows have under the same name.
    pub(super) fn watermark_column(
        &self,
        model: &Model,
        schema: &Schema,
        stream: Option<usize>,
        slots: &Slots,
    ) -> Option<String> {
        let passed = || self.known.get(&slots.inputs.get(stream?)?.relation)?.watermark_column.clone();
        let name = model.config.watermark.as_ref().map(|w| w.column.clone()).or_else(passed)?;
        schema.fields().iter().find(|f| f.name().eq_ignore_ascii_case(&name)).map(|f| f.name().clone())
    }

    /// Of a model's table with a watermark, the place of the column it is of.
    pub(super) fn event_time_column(&self, input: &Input) -> Option<usize> {
        let Relation::Model(_) = &input.relation else { return None };
        let known = self.known.get(&input.relation).filter(|known| known.has_watermark)?;
        input.schema.index_of(known.watermark_column.as_ref()?).ok()
    }
}
