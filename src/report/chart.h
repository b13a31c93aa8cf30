#pragma once
#include <string>
#include <utility>
#include <vector>

namespace awq {

/// A line over blocks. `style` is the class that gives it colour and dash: "result" or "reference".
struct Line {
  std::string name, style;
  std::vector<std::pair<double, double>> points;
};
struct LineChart {
  std::string title;
  std::vector<Line> lines;
  bool logarithmic = false;  // values that are not positive stand at the lower edge
  bool percent = false;
};
/// Inline SVG with the title as its name and the lines' first, last, lowest and highest values as its description.
/// `id`: unique on the page.
std::string svg(const LineChart& chart, const std::string& id);

struct Bar {
  std::string label;
  double value = 0;
  std::string text;  // the value in words
};
struct BarChart {
  std::string title;
  std::vector<Bar> bars;
};
/// Columns from left to right, labels below; for many short labels.
std::string columns_svg(const BarChart& chart, const std::string& id);
/// Bars one below the other, labels on the left.
std::string bars_svg(const BarChart& chart, const std::string& id);

struct ScatterPoint {
  std::string label;
  double x = 0, y = 0, error = 0;  // of y
};
struct ScatterChart {
  std::string title, x;  // what stands below the horizontal axis
  std::vector<ScatterPoint> points;
};
/// Dots with their labels and error bars; both axes begin at 0.
std::string scatter_svg(const ScatterChart& chart, const std::string& id);

}  // namespace awq
