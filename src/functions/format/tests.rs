//! Patterns of the three languages: what they read, what they refuse, what they write.

use super::*;

fn format(pattern: &str, style: Style) -> Format {
    let format = Format::compile(pattern, style).unwrap();
    format.check_parses().unwrap();
    format
}

/// `text` read by `pattern`, as RFC 3339 in UTC; `-` when it does not match.
fn read(style: Style, pattern: &str, text: &str) -> String {
    let parsed = format(pattern, style).parse(text).and_then(|parts| parts.timestamp_micros());
    parsed.map_or("-".to_string(), |micros| {
        chrono::DateTime::from_timestamp_micros(micros).unwrap().format("%Y-%m-%dT%H:%M:%S%.f").to_string()
    })
}

/// 2024-03-05 14:07:09.123456789 UTC, a Tuesday, written by `pattern`.
fn write(style: Style, pattern: &str) -> String {
    let mut out = String::new();
    let moment = Moment::new(1_709_647_629, 123_456_789).unwrap();
    Format::compile(pattern, style).unwrap().render(moment, &mut out);
    out
}

fn refused(style: Style, pattern: &str) -> String {
    Format::compile(pattern, style).unwrap_err().message().to_string()
}

const STRFTIME: Style = Style::Strftime { fraction: 9 };

#[test]
fn snowflake_and_postgres_read() {
    for style in [Style::Snowflake, Style::Postgres] {
        let cases = [
            ("DD-MM-YYYY HH24:MI:SS", "29-02-2024 23:59:58", "2024-02-29T23:59:58"),
            // Leading zeros may be missing where the end of a number is plain.
            ("DD-MM-YYYY HH24:MI:SS", "1-2-2024 3:04:05", "2024-02-01T03:04:05"),
            ("YYYYMMDD", "20240229", "2024-02-29T00:00:00"),
            ("YYYYMMDD", "2024229", "-"),
            // Dates and times that do not exist.
            ("DD-MM-YYYY", "29-02-2023", "-"),
            ("DD-MM-YYYY", "31-04-2024", "-"),
            ("DD-MM-YYYY", "00-01-2024", "-"),
            ("DD-MM-YYYY", "01-13-2024", "-"),
            ("HH24:MI", "24:00", "-"),
            ("HH24:MI", "23:60", "-"),
            ("HH24:MI:SS", "23:59:60", "-"),
            // All of the text, and nothing but.
            ("DD-MM-YYYY", "01-01-2024 ", "-"),
            ("DD-MM-YYYY", " 01-01-2024", "-"),
            ("DD-MM-YYYY", "01-01-20245", "-"),
            ("DD-MM-YYYY", "01-01-24", "-"),
            ("DD-MM-YYYY", "", "-"),
            ("DD-MM-YYYY HH24:MI", "01-01-2024", "-"),
            // Names, in any case.
            ("DD-MON-YYYY", "05-mar-2024", "2024-03-05T00:00:00"),
            ("DD MONTH YYYY", "5 SEPTEMBER 2024", "2024-09-05T00:00:00"),
            ("DD-MON-YYYY", "05-xxx-2024", "-"),
            ("DY, DD MON YYYY", "Tue, 05 Mar 2024", "2024-03-05T00:00:00"),
            // It was a Tuesday.
            ("DY, DD MON YYYY", "Wed, 05 Mar 2024", "-"),
            // Twelve hours.
            ("YYYY-MM-DD HH12:MI AM", "2024-03-05 12:30 AM", "2024-03-05T00:30:00"),
            ("YYYY-MM-DD HH12:MI PM", "2024-03-05 12:30 pm", "2024-03-05T12:30:00"),
            ("YYYY-MM-DD HH:MI AM", "2024-03-05 01:30 PM", "2024-03-05T13:30:00"),
            ("HH12:MI AM", "13:30 PM", "-"),
            ("HH12:MI AM", "0:30 AM", "-"),
            // Fractions may be shorter than the pattern, not longer.
            ("SS.FF3", "07.5", "1970-01-01T00:00:07.500"),
            ("SS.FF3", "07.1234", "-"),
            ("SS.FF", "07.123456", "1970-01-01T00:00:07.123456"),
            // Zones.
            ("YYYY-MM-DD HH24:MI TZH:TZM", "2024-03-05 01:30 +05:30", "2024-03-04T20:00:00"),
            ("YYYY-MM-DD HH24:MI TZH:TZM", "2024-03-05 01:30 -05:30", "2024-03-05T07:00:00"),
            ("YYYY-MM-DD HH24:MI TZHTZM", "2024-03-05 01:30 -0530", "2024-03-05T07:00:00"),
            // Two digits of a year.
            ("DD/MM/YY", "05/03/69", "2069-03-05T00:00:00"),
            ("DD/MM/YY", "05/03/70", "1970-03-05T00:00:00"),
            // Keywords in any case; quotes; text that is no keyword.
            ("yyyy-mm-dd\"T\"hh24:mi:ss", "2024-03-05T14:07:09", "2024-03-05T14:07:09"),
            ("YYYY-MM-DDTHH24:MI:SSZ", "2024-03-05T14:07:09Z", "2024-03-05T14:07:09"),
            ("YYYY年MM月DD日", "2024年03月05日", "2024-03-05T00:00:00"),
            ("YYYY-DDD", "2024-366", "2024-12-31T00:00:00"),
            ("YYYY-DDD", "2023-366", "-"),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(read(style, pattern, text), expected, "{style:?} {pattern} {text}");
        }
    }
}

#[test]
fn spark_reads() {
    let cases = [
        ("dd-MM-yyyy HH:mm:ss", "29-02-2024 23:59:58", "2024-02-29T23:59:58"),
        // Two letters are two digits; one letter is one or two.
        ("dd-MM-yyyy", "1-2-2024", "-"),
        ("d-M-yyyy", "1-2-2024", "2024-02-01T00:00:00"),
        ("d-M-yyyy", "11-12-2024", "2024-12-11T00:00:00"),
        ("yyyyMMddHHmmss", "20240305140709", "2024-03-05T14:07:09"),
        ("dd-MM-yyyy", "31-04-2024", "-"),
        ("dd-MM-yyyy", "01-01-2024x", "-"),
        ("dd MMM yyyy", "05 Mar 2024", "2024-03-05T00:00:00"),
        ("dd MMMM yyyy", "05 March 2024", "2024-03-05T00:00:00"),
        ("hh:mm a", "12:30 AM", "1970-01-01T00:30:00"),
        ("hh:mm a", "01:30 PM", "1970-01-01T13:30:00"),
        ("yyyy-MM-dd'T'HH:mm:ss.SSSXXX", "2024-03-05T14:07:09.123+02:00", "2024-03-05T12:07:09.123"),
        ("yyyy-MM-dd'T'HH:mm:ss.SSSXXX", "2024-03-05T14:07:09.1Z", "2024-03-05T14:07:09.100"),
        ("yyyy-MM-dd'T'HH:mm:ss.SSSXXX", "2024-03-05T14:07:09.1234Z", "-"),
        ("yyyy-MM-dd HH:mm VV", "2024-07-01 12:00 Europe/Paris", "2024-07-01T10:00:00"),
        ("yyyy-MM-dd[ HH:mm]", "2024-03-05", "2024-03-05T00:00:00"),
        ("yyyy-MM-dd[ HH:mm]", "2024-03-05 14:07", "2024-03-05T14:07:00"),
        ("yyyy-MM-dd[ HH:mm]", "2024-03-05 14", "-"),
        ("yy", "69", "2069-01-01T00:00:00"),
        ("h 'o''clock'", "7 o'clock", "1970-01-01T07:00:00"),
    ];
    for (pattern, text, expected) in cases {
        assert_eq!(read(Style::Java, pattern, text), expected, "{pattern} {text}");
    }
}

#[test]
fn strftime_reads() {
    let cases = [
        ("%d-%m-%Y %H:%M:%S", "29-02-2024 23:59:58", "2024-02-29T23:59:58"),
        ("%d-%m-%Y", "1-2-2024", "2024-02-01T00:00:00"),
        ("%Y%m%d", "20240229", "2024-02-29T00:00:00"),
        ("%d-%m-%Y", "31-04-2024", "-"),
        ("%FT%T%.f%:z", "2024-03-05T14:07:09.25+02:00", "2024-03-05T12:07:09.250"),
        ("%FT%T%.f%:z", "2024-03-05T14:07:09+02:00", "2024-03-05T12:07:09"),
        ("%H:%M:%S.%f", "14:07:09.123456", "1970-01-01T14:07:09.123456"),
        ("%H:%M:%S.%3f", "14:07:09.12", "-"),
        ("%I:%M %p", "01:30 pm", "1970-01-01T13:30:00"),
        ("%e %b %Y", " 5 Mar 2024", "2024-03-05T00:00:00"),
        ("%a %d %B %Y", "Tue 05 March 2024", "2024-03-05T00:00:00"),
        ("%s", "-1", "1969-12-31T23:59:59"),
        ("%j/%Y", "060/2024", "2024-02-29T00:00:00"),
        ("100%%", "100%", "1970-01-01T00:00:00"),
    ];
    for (pattern, text, expected) in cases {
        assert_eq!(read(STRFTIME, pattern, text), expected, "{pattern} {text}");
    }
}

#[test]
fn each_language_writes() {
    let cases = [
        (Style::Snowflake, "DD-MM-YYYY HH24:MI:SS", "05-03-2024 14:07:09"),
        (Style::Snowflake, "DY, DD MON YYYY / MMMM / YY", "Tue, 05 Mar 2024 / March / 24"),
        (Style::Snowflake, "HH12:MI AM .FF3 FF9 FF0", "02:07 PM .123 123456789 "),
        (Style::Snowflake, "TZH:TZM TZHTZM \"MM\" Q", "+00:00 +0000 MM Q"),
        (Style::Postgres, "MON Mon mon MONTH|Month|month|FMMonth", "MAR Mar mar MARCH    |March    |march    |March"),
        (Style::Postgres, "DY Dy dy FMDD FMHH12 am A.M.", "TUE Tue tue 5 2 pm P.M."),
        (Style::Postgres, "MS US SSSS Q DDD D ID IW IYYY WW CC J", "123 123456 50829 1 065 3 2 10 2024 10 21 2460375"),
        (Style::Java, "dd-MM-yyyy HH:mm:ss.SSS", "05-03-2024 14:07:09.123"),
        (Style::Java, "d/M/yy h:m a E EEEE MMM MMMM", "5/3/24 2:7 PM Tue Tuesday Mar March"),
        (Style::Java, "yyyy-MM-dd'T'HH:mm:ssXXX xxx Z X D Q", "2024-03-05T14:07:09Z +00:00 +0000 Z 65 1"),
        (STRFTIME, "%d-%m-%Y %H:%M:%S%.3f %f", "05-03-2024 14:07:09.123 123456789"),
        (STRFTIME, "%a %A %b %B %e %-d %_m %j %I %l %p %P", "Tue Tuesday Mar March  5 5  3 065 02  2 PM pm"),
        (
            STRFTIME,
            "%y %C %u %w %U %W %V %G %q %s %z %:z %Z %%",
            "24 21 2 2 09 10 10 2024 1 1709647629 +0000 +00:00 UTC %",
        ),
        (Style::Strftime { fraction: 6 }, "%f", "123456"),
    ];
    for (style, pattern, expected) in cases {
        assert_eq!(write(style, pattern), expected, "{style:?} {pattern}");
    }
}

#[test]
fn what_is_written_reads_back() {
    let patterns = [
        (Style::Snowflake, "YYYY-MM-DD HH24:MI:SS.FF9 TZH:TZM"),
        (Style::Postgres, "Dy DD Mon YYYY HH12:MI:SS.US AM"),
        (Style::Java, "EEE d MMMM yyyy hh:mm:ss.SSSSSS a Z"),
        (STRFTIME, "%a %e %b %Y %l:%M:%S.%f %p"),
    ];
    for (style, pattern) in patterns {
        // Around leap days, year ends, noon, midnight and before 1970.
        for seconds in [0, -1, 951_782_399, 951_782_400, 1_709_164_800, 1_735_689_599, -62_135_596_800, 253_402_300_799]
        {
            let format = format(pattern, style);
            let mut text = String::new();
            format.render(Moment::new(seconds, 654_321_000).unwrap(), &mut text);
            let parsed = format.parse(&text).and_then(|parts| parts.timestamp_micros());
            assert_eq!(parsed, Ok(seconds * 1_000_000 + 654_321), "{style:?} {pattern} {text}");
        }
    }
}

#[test]
fn patterns_that_are_none_are_refused_with_the_reason() {
    assert_eq!(
        refused(Style::Java, "YYYY-MM-dd"),
        "the pattern 'YYYY-MM-dd' has 'YYYY', which Spark's patterns do not know"
    );
    assert_eq!(
        refused(Style::Java, "yyyy-MM-ddT"),
        "the pattern 'yyyy-MM-ddT' has 'T', which Spark's patterns do not know"
    );
    assert_eq!(refused(Style::Java, "yyyy 'x"), "the pattern 'yyyy 'x' has a quote without its end");
    assert_eq!(refused(Style::Java, "yyyy]"), "the pattern 'yyyy]' has [ and ] that do not match");
    assert_eq!(refused(Style::Java, "[yyyy"), "the pattern '[yyyy' has [ and ] that do not match");
    assert_eq!(refused(STRFTIME, "%Y-%Q"), "the pattern '%Y-%Q' has '%Q', which strftime does not know");
    assert_eq!(refused(STRFTIME, "%Y%"), "the pattern '%Y%' has '%', which strftime does not know");
    assert_eq!(refused(Style::Snowflake, "YYYY\"T"), "the pattern 'YYYY\"T' has a quote without its end");
    let weeks = Format::compile("IYYY-IW", Style::Postgres).unwrap().check_parses().unwrap_err();
    assert_eq!(weeks.message(), "the pattern 'IYYY-IW' has weeks or centuries, which can be written but not read");
}

#[test]
fn a_mismatch_names_the_value_the_pattern_and_the_place() {
    let explain = |text: &str| {
        let format = format("DD-MM-YYYY HH24:MI", Style::Snowflake);
        let mismatch = format.parse(text).and_then(|parts| parts.timestamp_micros()).unwrap_err();
        format.explain(text, mismatch, "try_to_timestamp").message().to_string()
    };
    let head = |text: &str| format!("'{text}' does not match the pattern 'DD-MM-YYYY HH24:MI': ");
    assert_eq!(explain("31-13-2024 00:00"), head("31-13-2024 00:00") + "expected a month at '13-2024 00:00'");
    assert_eq!(explain("31-12-2024"), head("31-12-2024") + "the text ends where the pattern's own text should stand");
    assert_eq!(explain("31-12-2024 00:00x"), head("31-12-2024 00:00x") + "'x' is left over");
    assert_eq!(explain("31-04-2024 00:00"), head("31-04-2024 00:00") + "there is no such date");
    assert_eq!(explain("é"), head("é") + "expected a day at 'é'");
}
