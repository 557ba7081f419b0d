//! Filters that stock DataFusion moves down in a physical plan find their columns again by name, also where an operator's rows have
//! two columns of that name: above `a.n < 2 or b.n < 2` over a join whose inputs were swapped, both became `b.n`. The rules that do
//! so are given only what has no namesakes.

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use std::collections::HashSet;
use std::sync::Arc;

type Rule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;

/// The rule, if it moves filters by name, for parts of plans without namesakes.
pub fn told_apart(rule: Rule) -> Rule {
    if rule.name().starts_with("FilterPushdown") { Arc::new(ToldApart(rule)) } else { rule }
}

#[derive(Debug)]
struct ToldApart(Rule);

impl PhysicalOptimizerRule for ToldApart {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let optimized = plan.transform_down(|node| match has_namesakes(&node)? {
            true => Ok(Transformed::no(node)),
            false => Ok(Transformed::new(self.0.optimize(node, config)?, true, TreeNodeRecursion::Jump)),
        })?;
        Ok(optimized.data)
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

/// Whether any operator of the plan gives out two columns of one name.
fn has_namesakes(plan: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    plan.exists(|node| {
        let mut names = HashSet::new();
        Ok(!node.schema().fields().iter().all(|field| names.insert(field.name().clone())))
    })
}
