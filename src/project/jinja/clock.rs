//! Python's dates and times, as `run_started_at` and `modules.datetime` give them.
//!
//! A [`Moment`] that comes from the clock carries where from: using it in any way is noted in the scope, and a maintained
//! table that does so does not compile. Moments that the template itself wrote down are plain values.

use std::cmp::Ordering;
use std::fmt::{self, Write};
use std::sync::Arc;

use chrono::{
    DateTime, Datelike, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeDelta, TimeZone, Timelike, Utc,
};
use chrono_tz::Tz;
use minijinja::value::{DynObject, Enumerator, Kwargs, Object, ObjectRepr};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::scope::Scope;

/// Filters that [`super::template`] writes for `… - modules.datetime.timedelta(…)`: objects have no operators in minijinja.
pub(super) const PLUS: &str = "__plus";
pub(super) const MINUS: &str = "__minus";

pub(super) fn add(environment: &mut Environment<'static>) {
    environment.add_filter(PLUS, |a: Value, b: Value| shifted(&a, &b, 1));
    environment.add_filter(MINUS, |a: Value, b: Value| shifted(&a, &b, -1));
}

/// Where a value came from that differs from run to run.
#[derive(Clone)]
pub(super) struct Taint {
    pub name: &'static str,
    pub scope: Arc<Scope>,
}

/// A date, time or duration.
#[derive(Clone)]
pub(super) struct Moment {
    kind: Kind,
    taint: Option<Taint>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Stamp(NaiveDateTime, Option<Zone>),
    Date(NaiveDate),
    Time(NaiveTime),
    Delta(TimeDelta),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Zone {
    Fixed(FixedOffset),
    Named(Tz),
}

impl Zone {
    fn utc() -> Self {
        Zone::Fixed(Utc.fix())
    }

    /// The offset at a local time; at one that a clock change skips or repeats, the earlier.
    fn offset(self, local: NaiveDateTime) -> FixedOffset {
        match self {
            Zone::Fixed(offset) => offset,
            Zone::Named(tz) => {
                let offset = tz.offset_from_local_datetime(&local).earliest();
                offset.unwrap_or_else(|| tz.offset_from_utc_datetime(&local)).fix()
            }
        }
    }

    fn local(self, instant: DateTime<Utc>) -> NaiveDateTime {
        match self {
            Zone::Fixed(offset) => instant.with_timezone(&offset).naive_local(),
            Zone::Named(tz) => instant.with_timezone(&tz).naive_local(),
        }
    }

    fn name(self, local: NaiveDateTime) -> String {
        match self {
            Zone::Fixed(offset) if offset.local_minus_utc() == 0 => "UTC".to_string(),
            Zone::Fixed(offset) => format!("UTC{offset}"),
            Zone::Named(tz) => match tz.from_local_datetime(&local).earliest() {
                Some(t) => t.format("%Z").to_string(),
                None => tz.to_string(),
            },
        }
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

impl Moment {
    fn value(kind: Kind, taint: Option<Taint>) -> Value {
        Value::from_object(Moment { kind, taint })
    }

    fn plain(kind: Kind) -> Value {
        Moment::value(kind, None)
    }

    /// An instant of the clock, in UTC.
    pub fn instant(instant: DateTime<Utc>, taint: Taint) -> Value {
        Moment::value(Kind::Stamp(instant.naive_utc(), Some(Zone::utc())), Some(taint))
    }

    /// A date, in days since 1970-01-01.
    pub fn date(days: i32) -> Value {
        let day = NaiveDate::default().checked_add_signed(TimeDelta::days(i64::from(days)));
        Moment::plain(Kind::Date(day.unwrap_or_default()))
    }

    /// A time without a zone, in µs since 1970-01-01.
    pub fn timestamp(micros: i64) -> Value {
        let instant = DateTime::from_timestamp_micros(micros).unwrap_or_default();
        Moment::plain(Kind::Stamp(instant.naive_utc(), None))
    }

    fn touch(&self) {
        if let Some(taint) = &self.taint {
            taint.scope.note_run_dependent(taint.name);
        }
    }

    fn with(&self, kind: Kind) -> Value {
        Moment::value(kind, self.taint.clone())
    }

    fn strftime(&self, pattern: &str) -> Result<Value, Error> {
        // Python's fraction has six digits.
        let pattern = pattern.replace("%f", "%6f");
        let mut text = String::new();
        let written = match self.kind {
            Kind::Stamp(local, Some(zone)) => {
                let pattern = pattern.replace("%Z", &zone.name(local));
                match zone.offset(local).from_local_datetime(&local).earliest() {
                    Some(t) => write!(text, "{}", t.format(&pattern)),
                    None => write!(text, "{}", local.format(&pattern)),
                }
            }
            Kind::Stamp(local, None) => write!(text, "{}", local.format(&pattern.replace("%z", "").replace("%Z", ""))),
            Kind::Date(date) => write!(text, "{}", date.and_time(NaiveTime::MIN).format(&pattern)),
            Kind::Time(time) => write!(text, "{}", time.format(&pattern)),
            Kind::Delta(_) => return Err(Error::from(ErrorKind::UnknownMethod)),
        };
        written.map_err(|_| invalid(format!("bad strftime pattern `{pattern}`")))?;
        Ok(Value::from(text))
    }

    fn replaced(&self, named: &[(String, Value)]) -> Result<Value, Error> {
        let get = |name: &str, old: u32| -> Result<u32, Error> {
            match named.iter().find(|(n, _)| n == name) {
                Some((_, v)) => {
                    v.as_i64().and_then(|v| u32::try_from(v).ok()).ok_or_else(|| invalid(format!("bad {name}")))
                }
                None => Ok(old),
            }
        };
        let date = |d: NaiveDate| -> Result<NaiveDate, Error> {
            NaiveDate::from_ymd_opt(
                get("year", d.year() as u32)? as i32,
                get("month", d.month())?,
                get("day", d.day())?,
            )
            .ok_or_else(|| invalid("there is no such date"))
        };
        let time = |t: NaiveTime| -> Result<NaiveTime, Error> {
            let micros = get("microsecond", t.nanosecond() / 1000)?;
            NaiveTime::from_hms_micro_opt(
                get("hour", t.hour())?,
                get("minute", t.minute())?,
                get("second", t.second())?,
                micros,
            )
            .ok_or_else(|| invalid("there is no such time"))
        };
        Ok(self.with(match self.kind {
            Kind::Stamp(t, zone) => {
                let zone = match named.iter().find(|(n, _)| n == "tzinfo") {
                    Some((_, value)) => zone_of(value)?,
                    None => zone,
                };
                Kind::Stamp(date(t.date())?.and_time(time(t.time())?), zone)
            }
            Kind::Date(d) => Kind::Date(date(d)?),
            Kind::Time(t) => Kind::Time(time(t)?),
            Kind::Delta(_) => return Err(Error::from(ErrorKind::UnknownMethod)),
        }))
    }
}

/// Python's `str`: the fraction only when there is one.
impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fraction = |nanos: u32| if nanos == 0 { String::new() } else { format!(".{:06}", nanos / 1000) };
        match self.kind {
            Kind::Stamp(t, zone) => {
                write!(f, "{}{}", t.format("%Y-%m-%d %H:%M:%S"), fraction(t.nanosecond()))?;
                zone.map_or(Ok(()), |z| write!(f, "{}", z.offset(t)))
            }
            Kind::Date(d) => write!(f, "{d}"),
            Kind::Time(t) => write!(f, "{}{}", t.format("%H:%M:%S"), fraction(t.nanosecond())),
            Kind::Delta(d) => {
                let (days, micros) = split(d);
                if days != 0 {
                    write!(f, "{days} day{}, ", if days.abs() == 1 { "" } else { "s" })?;
                }
                let seconds = micros / 1_000_000;
                write!(f, "{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)?;
                f.write_str(&fraction((micros % 1_000_000) as u32 * 1000))
            }
        }
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Days and microseconds of the day, which are never negative: Python's normal form.
fn split(delta: TimeDelta) -> (i64, i64) {
    let micros = delta.num_microseconds().unwrap_or(0);
    (micros.div_euclid(86_400_000_000), micros.rem_euclid(86_400_000_000))
}

fn instant(t: NaiveDateTime, zone: Option<Zone>) -> NaiveDateTime {
    t - TimeDelta::seconds(zone.map_or(0, |z| i64::from(z.offset(t).local_minus_utc())))
}

impl Object for Moment {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::NonEnumerable
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.touch();
        let key = key.as_str()?;
        let (date, time) = match self.kind {
            Kind::Stamp(t, _) => (Some(t.date()), Some(t.time())),
            Kind::Date(d) => (Some(d), None),
            Kind::Time(t) => (None, Some(t)),
            Kind::Delta(d) => {
                let (days, micros) = split(d);
                return match key {
                    "days" => Some(Value::from(days)),
                    "seconds" => Some(Value::from(micros / 1_000_000)),
                    "microseconds" => Some(Value::from(micros % 1_000_000)),
                    _ => None,
                };
            }
        };
        match (key, date, time) {
            ("year", Some(d), _) => Some(Value::from(d.year())),
            ("month", Some(d), _) => Some(Value::from(d.month())),
            ("day", Some(d), _) => Some(Value::from(d.day())),
            ("hour", _, Some(t)) => Some(Value::from(t.hour())),
            ("minute", _, Some(t)) => Some(Value::from(t.minute())),
            ("second", _, Some(t)) => Some(Value::from(t.second())),
            ("microsecond", _, Some(t)) => Some(Value::from(t.nanosecond() / 1000)),
            ("tzinfo", Some(_), Some(_)) => match self.kind {
                Kind::Stamp(_, Some(zone)) => Some(Value::from_object(ZoneObject(zone))),
                _ => Some(Value::from(())),
            },
            _ => None,
        }
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        self.touch();
        let (args, named) = arguments(args)?;
        match (self.kind, method) {
            (_, "strftime") => {
                let pattern =
                    args.first().and_then(Value::as_str).ok_or_else(|| invalid("strftime needs a pattern"))?;
                self.strftime(pattern)
            }
            (Kind::Stamp(..), "isoformat") => {
                let separator = args.first().and_then(Value::as_str).unwrap_or("T");
                Ok(Value::from(self.to_string().replacen(' ', separator, 1)))
            }
            (Kind::Date(_) | Kind::Time(_), "isoformat") => Ok(Value::from(self.to_string())),
            (Kind::Stamp(t, zone), "timestamp") => {
                Ok(Value::from(instant(t, zone).and_utc().timestamp_micros() as f64 / 1e6))
            }
            (Kind::Stamp(t, _), "date") => Ok(self.with(Kind::Date(t.date()))),
            (Kind::Stamp(t, _), "time") => Ok(self.with(Kind::Time(t.time()))),
            (Kind::Stamp(t, zone), "astimezone") => {
                let to = match args.first().or(named.iter().find(|(n, _)| n == "tz").map(|(_, v)| v)) {
                    Some(value) => zone_of(value)?.unwrap_or_else(Zone::utc),
                    None => Zone::utc(),
                };
                Ok(self.with(Kind::Stamp(to.local(instant(t, zone).and_utc()), Some(to))))
            }
            (Kind::Stamp(t, Some(zone)), "utcoffset") => {
                Ok(self.with(Kind::Delta(TimeDelta::seconds(i64::from(zone.offset(t).local_minus_utc())))))
            }
            (_, "replace") => self.replaced(&named),
            (Kind::Stamp(..) | Kind::Date(_), "weekday" | "isoweekday" | "toordinal") => {
                let date = match self.kind {
                    Kind::Stamp(t, _) => t.date(),
                    Kind::Date(d) => d,
                    _ => NaiveDate::MIN,
                };
                Ok(Value::from(match method {
                    "weekday" => date.weekday().num_days_from_monday(),
                    "isoweekday" => date.weekday().number_from_monday(),
                    _ => date.num_days_from_ce() as u32,
                }))
            }
            (Kind::Delta(d), "total_seconds") => Ok(Value::from(d.num_microseconds().unwrap_or(0) as f64 / 1e6)),
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }

    fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<Ordering> {
        self.touch();
        let other = other.downcast_ref::<Moment>()?;
        other.touch();
        match (self.kind, other.kind) {
            (Kind::Stamp(a, az), Kind::Stamp(b, bz)) => instant(a, az).partial_cmp(&instant(b, bz)),
            (Kind::Date(a), Kind::Date(b)) => a.partial_cmp(&b),
            (Kind::Time(a), Kind::Time(b)) => a.partial_cmp(&b),
            (Kind::Delta(a), Kind::Delta(b)) => a.partial_cmp(&b),
            _ => None,
        }
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.touch();
        write!(f, "{self}")
    }
}

/// `a + b` or `a - b`.
fn shifted(a: &Value, b: &Value, sign: i32) -> Result<Value, Error> {
    let (Some(left), Some(right)) = (a.downcast_object_ref::<Moment>(), b.downcast_object_ref::<Moment>()) else {
        return Err(invalid(format!("a timedelta cannot be added to {}", a.kind())));
    };
    left.touch();
    right.touch();
    let taint = left.taint.clone().or_else(|| right.taint.clone());
    let kind = match (left.kind, right.kind) {
        (Kind::Stamp(t, zone), Kind::Delta(d)) => t.checked_add_signed(d * sign).map(|t| Kind::Stamp(t, zone)),
        (Kind::Date(t), Kind::Delta(d)) => t.checked_add_signed(TimeDelta::days(split(d * sign).0)).map(Kind::Date),
        (Kind::Delta(a), Kind::Delta(b)) => Some(Kind::Delta(a + b * sign)),
        (Kind::Stamp(a, az), Kind::Stamp(b, bz)) if sign < 0 => Some(Kind::Delta(instant(a, az) - instant(b, bz))),
        (Kind::Date(a), Kind::Date(b)) if sign < 0 => Some(Kind::Delta(a - b)),
        _ => return Err(invalid("these two cannot be added or subtracted")),
    };
    kind.map(|kind| Moment::value(kind, taint)).ok_or_else(|| invalid("date out of range"))
}

type Arguments = (Vec<Value>, Vec<(String, Value)>);

fn arguments(args: &[Value]) -> Result<Arguments, Error> {
    match args.split_last() {
        Some((last, rest)) if last.is_kwargs() => {
            let kwargs = Kwargs::try_from(last.clone())?;
            let named = kwargs.args().map(|k| Ok((k.to_string(), kwargs.peek(k)?))).collect::<Result<_, Error>>()?;
            Ok((rest.to_vec(), named))
        }
        _ => Ok((args.to_vec(), Vec::new())),
    }
}

/// A time zone: `modules.pytz.timezone('Africa/Cairo')`.
#[derive(Debug)]
struct ZoneObject(Zone);

impl Object for ZoneObject {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match (key.as_str()?, self.0) {
            ("zone", Zone::Named(tz)) => Some(Value::from(tz.name())),
            ("zone", Zone::Fixed(_)) => Some(Value::from("UTC")),
            _ => None,
        }
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        match (method, args.first().and_then(|v| v.downcast_object_ref::<Moment>())) {
            ("localize" | "normalize", Some(moment)) => {
                moment.touch();
                match moment.kind {
                    Kind::Stamp(t, None) => Ok(moment.with(Kind::Stamp(t, Some(self.0)))),
                    Kind::Stamp(t, zone) => {
                        Ok(moment.with(Kind::Stamp(self.0.local(instant(t, zone).and_utc()), Some(self.0))))
                    }
                    _ => Err(invalid("localize takes a datetime")),
                }
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Zone::Named(tz) => f.write_str(tz.name()),
            Zone::Fixed(offset) if offset.local_minus_utc() == 0 => f.write_str("UTC"),
            Zone::Fixed(offset) => write!(f, "UTC{offset}"),
        }
    }
}

fn zone_of(value: &Value) -> Result<Option<Zone>, Error> {
    if value.is_none() {
        return Ok(None);
    }
    match value.downcast_object_ref::<ZoneObject>() {
        Some(zone) => Ok(Some(zone.0)),
        None => Err(invalid("a time zone is modules.pytz.timezone('…') or modules.pytz.utc")),
    }
}

/// `modules.pytz`
pub(super) fn timezone(name: &str) -> Result<Value, Error> {
    if name.eq_ignore_ascii_case("utc") {
        return Ok(utc());
    }
    let zone = name.parse::<Tz>().map_err(|_| invalid(format!("no time zone `{name}`")))?;
    Ok(Value::from_object(ZoneObject(Zone::Named(zone))))
}

pub(super) fn utc() -> Value {
    Value::from_object(ZoneObject(Zone::utc()))
}

/// A class of `modules.datetime`.
pub(super) struct Class {
    pub name: &'static str,
    pub now: DateTime<Utc>,
    pub scope: Arc<Scope>,
}

impl fmt::Debug for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<class 'datetime.{}'>", self.name)
    }
}

impl Class {
    fn now(&self, kind: Kind) -> Value {
        Moment::value(kind, Some(Taint { name: "modules.datetime", scope: Arc::clone(&self.scope) }))
    }
}

impl Object for Class {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match (self.name, key.as_str()?) {
            ("timezone", "utc") => Some(utc()),
            _ => None,
        }
    }

    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        let (args, named) = arguments(args)?;
        let find = |i: Option<usize>, name: &str| {
            let positional = i.and_then(|i| args.get(i).cloned());
            positional.or_else(|| named.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()))
        };
        let int = |i: usize, name: &str| {
            find(Some(i), name).map_or(Ok(0), |v| {
                v.as_i64()
                    .and_then(|v| u32::try_from(v).ok())
                    .ok_or_else(|| invalid(format!("{}: bad {name}", self.name)))
            })
        };
        let date = || -> Result<NaiveDate, Error> {
            NaiveDate::from_ymd_opt(int(0, "year")? as i32, int(1, "month")?, int(2, "day")?)
                .ok_or_else(|| invalid("there is no such date"))
        };
        let time = |from: usize| -> Result<NaiveTime, Error> {
            let micros = int(from + 3, "microsecond")?;
            NaiveTime::from_hms_micro_opt(
                int(from, "hour")?,
                int(from + 1, "minute")?,
                int(from + 2, "second")?,
                micros,
            )
            .ok_or_else(|| invalid("there is no such time"))
        };
        match self.name {
            "datetime" => {
                let zone = find(Some(7), "tzinfo").map_or(Ok(None), |v| zone_of(&v))?;
                Ok(Moment::plain(Kind::Stamp(date()?.and_time(time(3)?), zone)))
            }
            "date" => Ok(Moment::plain(Kind::Date(date()?))),
            "time" => Ok(Moment::plain(Kind::Time(time(0)?))),
            "timedelta" => {
                let units = [
                    ("days", 86_400_000_000f64),
                    ("seconds", 1e6),
                    ("microseconds", 1.0),
                    ("milliseconds", 1e3),
                    ("minutes", 60e6),
                    ("hours", 3_600e6),
                    ("weeks", 7.0 * 86_400_000_000f64),
                ];
                let mut micros = 0.0;
                for (i, (name, size)) in units.into_iter().enumerate() {
                    if let Some(value) = find(Some(i), name) {
                        micros += f64::try_from(value).map_err(|_| invalid(format!("timedelta: bad {name}")))? * size;
                    }
                }
                Ok(Moment::plain(Kind::Delta(TimeDelta::microseconds(micros.round() as i64))))
            }
            "timezone" => match find(Some(0), "offset").as_ref().and_then(|v| v.downcast_object_ref::<Moment>()) {
                Some(Moment { kind: Kind::Delta(d), .. }) => FixedOffset::east_opt(d.num_seconds() as i32)
                    .map(|offset| Value::from_object(ZoneObject(Zone::Fixed(offset))))
                    .ok_or_else(|| invalid("there is no such offset")),
                _ => Err(invalid("timezone takes a timedelta")),
            },
            _ => Err(Error::from(ErrorKind::UnknownFunction)),
        }
    }

    fn call_method(self: &Arc<Self>, state: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        let (positional, named) = arguments(args)?;
        let text = |i: usize| {
            let text = positional.get(i).and_then(Value::as_str);
            text.ok_or_else(|| invalid(format!("datetime.{method} takes text")))
        };
        match (self.name, method) {
            ("datetime", "now" | "utcnow" | "today") => {
                let zone = positional.first().or(named.iter().find(|(n, _)| n == "tz").map(|(_, v)| v));
                let zone = zone.map_or(Ok(None), zone_of)?;
                let local = zone.map_or(self.now.naive_utc(), |z| z.local(self.now));
                Ok(self.now(Kind::Stamp(local, zone)))
            }
            ("date", "today") => Ok(self.now(Kind::Date(self.now.date_naive()))),
            ("datetime", "strptime") => parse(text(0)?, text(1)?),
            ("datetime", "fromisoformat") => from_iso(text(0)?),
            ("date", "fromisoformat") => {
                let date = text(0)?.parse().map_err(|_| invalid("not a date written as 2026-01-31"))?;
                Ok(Moment::plain(Kind::Date(date)))
            }
            ("datetime", "fromtimestamp" | "utcfromtimestamp") => {
                let seconds = positional.first().and_then(|v| f64::try_from(v.clone()).ok());
                let stamp = seconds.and_then(|s| DateTime::from_timestamp_micros((s * 1e6).round() as i64));
                let zone = positional.get(1).map_or(Ok(None), zone_of)?;
                let stamp = stamp.ok_or_else(|| invalid("fromtimestamp takes seconds"))?;
                Ok(Moment::plain(Kind::Stamp(zone.map_or(stamp.naive_utc(), |z| z.local(stamp)), zone)))
            }
            ("datetime", "combine") => {
                let moment = |i: usize| positional.get(i).and_then(|v| v.downcast_object_ref::<Moment>());
                match (moment(0), moment(1)) {
                    (Some(Moment { kind: Kind::Date(d), taint }), Some(Moment { kind: Kind::Time(t), .. })) => {
                        Ok(Moment::value(Kind::Stamp(d.and_time(*t), None), taint.clone()))
                    }
                    _ => Err(invalid("combine takes a date and a time")),
                }
            }
            _ => {
                let class = Value::from_dyn_object(Arc::clone(self));
                class.get_attr(method)?.call(state, args).map_err(|_| Error::from(ErrorKind::UnknownMethod))
            }
        }
    }
}

/// Python's `strptime`.
fn parse(text: &str, pattern: &str) -> Result<Value, Error> {
    let chrono_pattern = pattern.replace(".%f", "%.f");
    let wrong = || invalid(format!("`{text}` does not match the pattern `{pattern}`"));
    if pattern.contains("%z") {
        let t = DateTime::parse_from_str(text, &chrono_pattern).map_err(|_| wrong())?;
        return Ok(Moment::plain(Kind::Stamp(t.naive_local(), Some(Zone::Fixed(*t.offset())))));
    }
    let stamp = NaiveDateTime::parse_from_str(text, &chrono_pattern)
        .or_else(|_| NaiveDate::parse_from_str(text, &chrono_pattern).map(|d| d.and_time(NaiveTime::MIN)))
        // `%Y-%m` and the like: the first day, midnight.
        .or_else(|_| {
            let more = |text: &str| format!("{text} 1 0");
            NaiveDateTime::parse_from_str(&format!("{} 0", more(text)), &format!("{chrono_pattern} %d %H %M"))
        });
    Ok(Moment::plain(Kind::Stamp(stamp.map_err(|_| wrong())?, None)))
}

fn from_iso(text: &str) -> Result<Value, Error> {
    if let Ok(t) = DateTime::parse_from_rfc3339(&text.replacen(' ', "T", 1)) {
        return Ok(Moment::plain(Kind::Stamp(t.naive_local(), Some(Zone::Fixed(*t.offset())))));
    }
    let text = text.replacen(' ', "T", 1);
    let stamp = NaiveDateTime::parse_from_str(&text, "%Y-%m-%dT%H:%M:%S%.f")
        .or_else(|_| NaiveDateTime::parse_from_str(&text, "%Y-%m-%dT%H:%M"))
        .or_else(|_| text.parse::<NaiveDate>().map(|d| d.and_time(NaiveTime::MIN)));
    let stamp = stamp.map_err(|_| invalid(format!("`{text}` is no ISO 8601 date and time")))?;
    Ok(Moment::plain(Kind::Stamp(stamp, None)))
}
