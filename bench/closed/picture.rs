//! Pictures for the docs, as SVG that is legible on light and dark.

use std::fmt::Write;

use anyhow::Result;

const COLOURS: [&str; 7] = ["#4e79a7", "#f28e2b", "#76b7b2", "#e15759", "#59a14f", "#b07aa1", "#9c755f"];
const TEXT: &str = "font-family=\"sans-serif\" font-size=\"12\" fill=\"#808080\"";

/// Stages one after the other, in seconds.
pub fn stages(path: &str, stages: &[(&str, f64)]) -> Result<()> {
    let total: f64 = stages.iter().map(|(_, seconds)| seconds).sum();
    let mut svg = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 640 190\" role=\"img\">\n<title>A closed gate opens</title>\n",
    );
    let mut from = 10.0;
    for (index, (name, seconds)) in stages.iter().enumerate() {
        let (width, colour) = (620.0 * seconds / total, COLOURS[index % COLOURS.len()]);
        writeln!(svg, "<rect x=\"{from:.1}\" y=\"10\" width=\"{width:.1}\" height=\"28\" fill=\"{colour}\"/>")?;
        let y = 60 + 18 * index;
        writeln!(svg, "<rect x=\"10\" y=\"{}\" width=\"10\" height=\"10\" fill=\"{colour}\"/>", y - 9)?;
        writeln!(svg, "<text x=\"28\" y=\"{y}\" {TEXT}>{name}: {:.0} ms</text>", seconds * 1e3)?;
        from += width;
    }
    svg.push_str("</svg>\n");
    Ok(std::fs::write(path, svg)?)
}

/// For each, which share of it is done after how many seconds. Each is sorted.
pub fn shares(path: &str, of: &[(&str, &[f64])]) -> Result<()> {
    let most = of.iter().filter_map(|(_, seconds)| seconds.last()).copied().fold(1.0, f64::max).ceil();
    let mut svg = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 640 280\" role=\"img\">\n<title>Keys made after so many seconds</title>\n",
    );
    let (x, y) = (|seconds: f64| 40.0 + 590.0 * seconds / most, |share: f64| 230.0 - 210.0 * share);
    for share in [0.0, 0.5, 0.9, 1.0] {
        writeln!(svg, "<path d=\"M40 {0:.1}H630\" stroke=\"#808080\" stroke-opacity=\"0.3\"/>", y(share))?;
        writeln!(svg, "<text x=\"2\" y=\"{:.1}\" {TEXT}>{:.0} %</text>", y(share) + 4.0, share * 100.0)?;
    }
    for seconds in 0..=most as usize {
        writeln!(svg, "<text x=\"{:.1}\" y=\"246\" {TEXT}>{seconds} s</text>", x(seconds as f64) - 8.0)?;
    }
    for (index, (name, seconds)) in of.iter().enumerate() {
        let step = (seconds.len() / 200).max(1);
        let points: Vec<_> = seconds
            .iter()
            .enumerate()
            .filter(|(at, _)| at % step == 0 || at + 1 == seconds.len())
            .map(|(at, after)| format!("{:.1},{:.1}", x(*after), y((at + 1) as f64 / seconds.len() as f64)))
            .collect();
        writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke-width=\"2\" stroke=\"{}\"/>",
            points.join(" "),
            COLOURS[index]
        )?;
        writeln!(
            svg,
            "<text x=\"{}\" y=\"270\" font-family=\"sans-serif\" font-size=\"12\" fill=\"{}\">{name}</text>",
            40 + 200 * index,
            COLOURS[index]
        )?;
    }
    svg.push_str("</svg>\n");
    Ok(std::fs::write(path, svg)?)
}

/// Seconds by numbers, which grow tenfold from one to the next.
pub fn growth(path: &str, title: &str, points: &[(f64, f64)]) -> Result<()> {
    let most = points.iter().map(|(_, seconds)| *seconds).fold(0.1, f64::max) * 1.1;
    let decades = points.iter().map(|(number, _)| number.log10()).fold(1.0, f64::max);
    let (x, y) = (|number: f64| 50.0 + 560.0 * number.log10() / decades, |seconds: f64| 230.0 - 210.0 * seconds / most);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 640 270\" role=\"img\">\n<title>{title}</title>\n"
    );
    writeln!(svg, "<path d=\"M50 20V230H630\" stroke=\"#808080\" fill=\"none\"/>")?;
    let line: Vec<_> = points.iter().map(|(number, seconds)| format!("{:.1},{:.1}", x(*number), y(*seconds))).collect();
    writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke-width=\"2\" stroke=\"{}\"/>",
        line.join(" "),
        COLOURS[0]
    )?;
    for (number, seconds) in points {
        writeln!(svg, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"{}\"/>", x(*number), y(*seconds), COLOURS[0])?;
        writeln!(svg, "<text x=\"{:.1}\" y=\"246\" {TEXT}>{number}</text>", x(*number) - 8.0)?;
        writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" {TEXT}>{seconds:.1} s</text>",
            x(*number) + 6.0,
            y(*seconds) - 6.0
        )?;
    }
    writeln!(svg, "<text x=\"50\" y=\"264\" {TEXT}>gates: {title}</text>")?;
    svg.push_str("</svg>\n");
    Ok(std::fs::write(path, svg)?)
}
