//! `modules`: the four of Python's modules that dbt shows to templates.

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use minijinja::value::{Kwargs, Object, ObjectRepr, Tuple};
use minijinja::{Error, ErrorKind, State, Value};

use super::clock::{self, Class};
use super::containers::List;
use super::regular::Re;
use super::scope::Scope;

/// `modules`
pub(super) fn modules(now: DateTime<Utc>, scope: &Arc<Scope>) -> Value {
    let class =
        |name: &'static str| (Value::from(name), Value::from_object(Class { name, now, scope: Arc::clone(scope) }));
    let datetime = Value::from_pairs(["datetime", "date", "time", "timedelta", "timezone"].map(class));
    Value::from_pairs([
        (Value::from("datetime"), datetime),
        (Value::from("pytz"), Value::from_object(Pytz)),
        (Value::from("re"), Value::from_object(Re)),
        (Value::from("itertools"), Value::from_object(Itertools)),
    ])
}

#[derive(Debug)]
struct Pytz;

impl Object for Pytz {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        matches!(key.as_str()?, "utc" | "UTC").then(clock::utc)
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        match (method, args.first().and_then(Value::as_str)) {
            ("timezone", Some(name)) => clock::timezone(name),
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<module 'pytz'>")
    }
}

/// What of `itertools` ends: `count`, `cycle` and `repeat` without a number do not.
#[derive(Debug)]
struct Itertools;

type Rows = Vec<Vec<Value>>;

impl Object for Itertools {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call_method(self: &Arc<Self>, state: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        let (args, kwargs) = match args.split_last() {
            Some((last, rest)) if last.is_kwargs() => (rest, Some(Kwargs::try_from(last.clone())?)),
            _ => (args, None),
        };
        let lists = || args.iter().map(|a| Ok(a.try_iter()?.collect())).collect::<Result<Rows, Error>>();
        let first = || -> Result<Vec<Value>, Error> {
            let first = args.first().ok_or_else(|| Error::from(ErrorKind::MissingArgument))?;
            Ok(first.try_iter()?.collect())
        };
        let size = || args.get(1).and_then(Value::as_usize);
        let tuples = |rows: Rows| Ok(List::value(rows.into_iter().map(|row| Value::from(Tuple::from(row))).collect()));
        match method {
            "chain" => Ok(List::value(lists()?.into_iter().flatten().collect())),
            "product" => {
                let repeat = kwargs.and_then(|k| k.get::<usize>("repeat").ok()).unwrap_or(1);
                let lists = lists()?;
                let factors = std::iter::repeat_n(lists, repeat).flatten();
                tuples(factors.fold(vec![Vec::new()], |rows, list| {
                    let with = |row: &Vec<Value>| {
                        list.iter().map(|v| [row.as_slice(), std::slice::from_ref(v)].concat()).collect::<Rows>()
                    };
                    rows.iter().flat_map(with).collect()
                }))
            }
            "combinations" => tuples(chosen(&first()?, size().unwrap_or(0), Choice::Combination)),
            "combinations_with_replacement" => tuples(chosen(&first()?, size().unwrap_or(0), Choice::Repeated)),
            "permutations" => {
                let items = first()?;
                let size = size().unwrap_or(items.len());
                tuples(chosen(&items, size, Choice::Permutation))
            }
            "islice" => {
                let numbers: Vec<usize> = args.iter().skip(1).map(|v| v.as_usize().unwrap_or(usize::MAX)).collect();
                let (start, stop, step) = match numbers.as_slice() {
                    [stop] => (0, *stop, 1),
                    [start, stop] => (*start, *stop, 1),
                    [start, stop, step, ..] => (*start, *stop, *step),
                    [] => return Err(Error::from(ErrorKind::MissingArgument)),
                };
                let taken = first()?.into_iter().take(stop).skip(start).step_by(step.max(1));
                Ok(List::value(taken.collect()))
            }
            "repeat" => match (args.first(), size()) {
                (Some(value), Some(times)) => Ok(List::value(vec![value.clone(); times])),
                _ => Err(Error::new(ErrorKind::InvalidOperation, "itertools.repeat needs a number of times")),
            },
            "zip_longest" => {
                let fill = kwargs.and_then(|k| k.get::<Value>("fillvalue").ok()).unwrap_or_else(|| Value::from(()));
                let lists = lists()?;
                let rows = lists.iter().map(Vec::len).max().unwrap_or(0);
                let row = |i: usize| lists.iter().map(|l| l.get(i).unwrap_or(&fill).clone()).collect();
                tuples((0..rows).map(row).collect())
            }
            "accumulate" => {
                let mut sums: Vec<Value> = Vec::new();
                for item in first()? {
                    let sum = match (sums.last(), args.get(1)) {
                        (None, _) => item,
                        (Some(last), Some(function)) => function.call(state, &[last.clone(), item])?,
                        (Some(last), None) => {
                            let numbers = (f64::try_from(last.clone())?, f64::try_from(item.clone())?);
                            match (last.as_i64(), item.as_i64()) {
                                (Some(a), Some(b)) => Value::from(a + b),
                                _ => Value::from(numbers.0 + numbers.1),
                            }
                        }
                    };
                    sums.push(sum);
                }
                Ok(List::value(sums))
            }
            "compress" => {
                let keep: Vec<bool> = args
                    .get(1)
                    .map_or(Ok(Vec::new()), |s| Ok::<_, Error>(s.try_iter()?.map(|v| v.is_true()).collect()))?;
                let kept = first()?.into_iter().zip(keep).filter(|(_, keep)| *keep).map(|(v, _)| v);
                Ok(List::value(kept.collect()))
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<module 'itertools'>")
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Choice {
    Combination,
    Repeated,
    Permutation,
}

/// All ways to choose `size` of `items`, in Python's order.
fn chosen(items: &[Value], size: usize, choice: Choice) -> Rows {
    let mut ways: Vec<Vec<usize>> = vec![Vec::new()];
    for _ in 0..size {
        let mut longer = Vec::new();
        for way in &ways {
            for next in 0..items.len() {
                let fits = match choice {
                    Choice::Combination => way.last().is_none_or(|last| next > *last),
                    Choice::Repeated => way.last().is_none_or(|last| next >= *last),
                    Choice::Permutation => !way.contains(&next),
                };
                if fits {
                    longer.push([way.as_slice(), &[next]].concat());
                }
            }
        }
        ways = longer;
    }
    ways.into_iter().map(|way| way.into_iter().map(|i| items[i].clone()).collect()).collect()
}
