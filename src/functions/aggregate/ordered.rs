//! Aggregates that want their rows in order: `string_agg`, `nth_value`, the percentiles.
//!
//! DataFusion sorts the input of an aggregation for them, and refuses two whose orders differ. `string_agg` and `percentile_cont` sort
//! for themselves anyway, so they need only say so. The others keep their rows and see them sorted, by ORDER BY and then by all
//! arguments, when the value is read; that makes the digests of the approximate percentiles depend on the rows alone, too.

use arrow::array::{Array, ArrayRef, AsArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{SortColumn, SortOptions, concat, lexsort_to_indices, take};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::functions_aggregate::approx_median::approx_median_udaf;
use datafusion::functions_aggregate::approx_percentile_cont::approx_percentile_cont_udaf;
use datafusion::functions_aggregate::approx_percentile_cont_with_weight::approx_percentile_cont_with_weight_udaf;
use datafusion::functions_aggregate::nth_value::nth_value_udaf;
use datafusion::functions_aggregate::percentile_cont::percentile_cont_udaf;
use datafusion::functions_aggregate::string_agg::string_agg_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, GroupsAccumulator, ReversedUDAF, Signature,
};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};
use std::sync::Arc;

pub fn functions() -> Vec<AggregateUDF> {
    let sort_themselves = [string_agg_udaf(), percentile_cont_udaf()];
    let need_sorted = [
        nth_value_udaf(),
        approx_median_udaf(),
        approx_percentile_cont_udaf(),
        approx_percentile_cont_with_weight_udaf(),
    ];
    let wrap = |sorts| move |stock| AggregateUDF::from(Ordered { stock, sorts });
    sort_themselves.into_iter().map(wrap(false)).chain(need_sorted.into_iter().map(wrap(true))).collect()
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Ordered {
    stock: Arc<AggregateUDF>,
    /// Whether rows are kept and sorted here.
    sorts: bool,
}

impl AggregateUDFImpl for Ordered {
    fn name(&self) -> &str {
        self.stock.name()
    }

    fn aliases(&self) -> &[String] {
        self.stock.aliases()
    }

    fn signature(&self) -> &Signature {
        self.stock.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.stock.return_type(types)
    }

    fn return_field(&self, fields: &[FieldRef]) -> Result<FieldRef> {
        self.stock.return_field(fields)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.stock.coerce_types(types)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if !self.sorts {
            return self.stock.accumulator(args);
        }
        // Found out now rather than at the first value.
        self.stock.accumulator(args.clone())?;
        Ok(Box::new(Sorting { call: Call::new(&self.stock, &args), batches: Vec::new() }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        if !self.sorts {
            return self.stock.state_fields(args);
        }
        let types = args.input_fields.iter().chain(args.ordering_fields).map(|f| f.data_type().clone());
        let list = DataType::List(element(row_fields(types)));
        Ok(vec![Arc::new(Field::new(format_state_name(args.name, "rows"), list, true))])
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        !self.sorts && self.stock.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        self.stock.create_groups_accumulator(args)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.stock.create_sliding_accumulator(args)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Beneficial
    }

    fn with_beneficial_ordering(self: Arc<Self>, _: bool) -> Result<Option<Arc<dyn AggregateUDFImpl>>> {
        Ok(Some(self))
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::NotSupported
    }

    fn is_nullable(&self) -> bool {
        self.stock.is_nullable()
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.stock.default_value(data_type)
    }

    fn supports_null_handling_clause(&self) -> bool {
        self.stock.supports_null_handling_clause()
    }

    fn supports_within_group_clause(&self) -> bool {
        self.stock.supports_within_group_clause()
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.stock.documentation()
    }
}

/// What makes a stock accumulator, any number of times.
#[derive(Debug)]
struct Call {
    stock: Arc<AggregateUDF>,
    return_field: FieldRef,
    schema: Schema,
    ignore_nulls: bool,
    order_bys: Vec<PhysicalSortExpr>,
    is_reversed: bool,
    name: String,
    is_distinct: bool,
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    expr_fields: Vec<FieldRef>,
}

impl Call {
    fn new(stock: &Arc<AggregateUDF>, args: &AccumulatorArgs) -> Self {
        Call {
            stock: Arc::clone(stock),
            return_field: Arc::clone(&args.return_field),
            schema: args.schema.clone(),
            ignore_nulls: args.ignore_nulls,
            order_bys: args.order_bys.to_vec(),
            is_reversed: args.is_reversed,
            name: args.name.to_string(),
            is_distinct: args.is_distinct,
            exprs: args.exprs.to_vec(),
            expr_fields: args.expr_fields.to_vec(),
        }
    }

    fn accumulator(&self) -> Result<Box<dyn Accumulator>> {
        self.stock.accumulator(AccumulatorArgs {
            return_field: Arc::clone(&self.return_field),
            schema: &self.schema,
            ignore_nulls: self.ignore_nulls,
            order_bys: &self.order_bys,
            is_reversed: self.is_reversed,
            name: &self.name,
            is_distinct: self.is_distinct,
            exprs: &self.exprs,
            expr_fields: &self.expr_fields,
        })
    }

    /// Types of a row: arguments, then ORDER BY.
    fn types(&self) -> Result<Vec<DataType>> {
        let order = self.order_bys.iter().map(|o| o.expr.data_type(&self.schema));
        self.expr_fields.iter().map(|f| Ok(f.data_type().clone())).chain(order).collect()
    }
}

/// Keeps its rows; a fresh stock accumulator sees them in order.
#[derive(Debug)]
struct Sorting {
    call: Call,
    /// Arguments, then ORDER BY, of each batch.
    batches: Vec<Vec<ArrayRef>>,
}

impl Sorting {
    /// All rows, column by column.
    fn rows(&self) -> Result<Vec<ArrayRef>> {
        let types = self.call.types()?;
        let column = |(i, data_type): (usize, &DataType)| {
            let parts: Vec<&dyn Array> = self.batches.iter().filter_map(|b| b.get(i)).map(AsRef::as_ref).collect();
            match parts.is_empty() {
                true => Ok(arrow::array::new_empty_array(data_type)),
                false => Ok(concat(&parts)?),
            }
        };
        types.iter().enumerate().map(column).collect()
    }

    fn sorted(&self) -> Result<Vec<ArrayRef>> {
        let rows = self.rows()?;
        let arguments = self.call.exprs.len();
        let order = self.call.order_bys.iter().map(|o| o.options);
        let by_order = rows[arguments..].iter().zip(order);
        let by_argument = rows[..arguments].iter().map(|values| (values, SortOptions::default()));
        let keys: Vec<SortColumn> = by_order
            .chain(by_argument)
            .map(|(values, options)| SortColumn { values: Arc::clone(values), options: Some(options) })
            .collect();
        let order = lexsort_to_indices(&keys, None)?;
        rows.iter().map(|column| Ok(take(column, &order, None)?)).collect()
    }
}

impl Accumulator for Sorting {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        if values.first().is_some_and(|v| !v.is_empty()) {
            self.batches.push(values.to_vec());
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut accumulator = self.call.accumulator()?;
        if !self.batches.is_empty() {
            accumulator.update_batch(&self.sorted()?)?;
        }
        accumulator.evaluate()
    }

    fn size(&self) -> usize {
        let rows: usize = self.batches.iter().flatten().map(|a| a.get_array_memory_size()).sum();
        size_of_val(self) + rows
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let fields = row_fields(self.call.types()?.into_iter());
        let rows = self.rows()?;
        let length = rows.first().map_or(0, |r| r.len());
        let rows = Arc::new(StructArray::try_new(fields.clone(), rows, None)?);
        let list = arrow::array::ListArray::try_new(element(fields), OffsetBuffer::from_lengths([length]), rows, None)?;
        Ok(vec![ScalarValue::List(Arc::new(list))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let Some(lists) = states.first().and_then(|s| s.as_list_opt::<i32>()) else {
            return internal_err!("the state of {} is no list", self.call.name);
        };
        for list in lists.iter().flatten() {
            self.update_batch(list.as_struct().columns())?;
        }
        Ok(())
    }
}

fn row_fields(types: impl Iterator<Item = DataType>) -> Fields {
    types.enumerate().map(|(i, t)| Field::new(format!("c{i}"), t, true)).collect()
}

fn element(fields: Fields) -> FieldRef {
    Arc::new(Field::new("row", DataType::Struct(fields), true))
}
