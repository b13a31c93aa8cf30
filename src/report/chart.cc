#include "report/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "report/html.h"

namespace awq {
namespace {

// Of a line chart, in units of its view box.
constexpr double kWidth = 320, kHeight = 170, kLeft = 46, kRight = 312, kTop = 8, kBottom = 146;
constexpr size_t kMarked = 48;  // points of a line that still get a dot each

std::string begin(double height, const std::string& title, const std::string& description, const std::string& id) {
  return fmt::format(
      "<svg viewBox=\"0 0 {:g} {:g}\" role=\"img\" aria-labelledby=\"{}-t {}-d\"><title id=\"{}-t\">{}</title>"
      "<desc id=\"{}-d\">{}</desc>\n",
      kWidth, height, id, id, id, escaped(title), id, escaped(description));
}

std::string text_at(double x, double y, std::string_view anchor, std::string_view text) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>", x, y, anchor, escaped(text));
}

struct Extent {
  double low = INFINITY, high = -INFINITY;
  void add(double v) { low = std::min(low, v), high = std::max(high, v); }
};

/// 1, 2 or 5 times a power of ten: at least `least`.
double nice_step(double least) {
  const double power = std::pow(10, std::floor(std::log10(least)));
  for (double f : {1.0, 2.0, 5.0})
    if (f * power >= least * (1 - 1e-9)) return f * power;
  return 10 * power;
}

/// Where values stand on the vertical axis.
class Axis {
 public:
  explicit Axis(const LineChart& c) : logarithmic_(c.logarithmic), percent_(c.percent) {
    Extent e;
    for (const Line& l : c.lines)
      for (const auto& [x, y] : l.points)
        if (std::isfinite(y) && (!logarithmic_ || y > 0)) e.add(y);
    if (!(e.low <= e.high)) e = {logarithmic_ ? 1.0 : 0.0, 1};
    logarithmic_ ? set_decades(e) : set_steps(e);
  }
  double at(double v) const {
    const double p = logarithmic_ ? (v > 0 ? std::log10(v) : low_) : v;
    return kBottom - (std::clamp(p, low_, high_) - low_) / (high_ - low_) * (kBottom - kTop);
  }
  std::string svg() const {
    std::string s;
    for (double t : ticks_) {
      s += fmt::format("<line class=\"grid\" x1=\"{:g}\" x2=\"{:g}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>", kLeft, kRight,
                       at(t), at(t));
      s += text_at(kLeft - 4, at(t) + 3.5, "end", percent_ ? percent(t) : number(t));
    }
    return s + "\n";
  }

 private:
  // Whole decades where there are two and more of them, otherwise 1, 2 and 5 within them.
  void set_decades(const Extent& e) {
    low_ = std::log10(e.low), high_ = std::log10(e.high);
    const bool few = high_ - low_ < 1.5;
    for (int d = int(std::floor(low_)); d <= int(std::ceil(high_)); ++d)
      for (double f : {1.0, 2.0, 5.0})
        if (f == 1 || few) ticks_.push_back(f * std::pow(10, d));
    const auto below = [&](double t) { return std::log10(t) <= low_ + 1e-9; };
    while (ticks_.size() > 2 && below(ticks_[1])) ticks_.erase(ticks_.begin());
    while (ticks_.size() > 2 && std::log10(ticks_[ticks_.size() - 2]) >= high_ - 1e-9) ticks_.pop_back();
    low_ = std::min(low_, std::log10(ticks_.front())), high_ = std::max(high_, std::log10(ticks_.back()));
  }
  void set_steps(const Extent& e) {
    const double top = std::max(e.high, 0.0), bottom = std::min(e.low, 0.0),
                 step = nice_step(top > bottom ? (top - bottom) / 4 : 0.25);
    low_ = std::floor(bottom / step) * step, high_ = std::max(std::ceil(top / step), 1.0) * step;
    for (int i = 0; low_ + i * step <= high_ + step / 2; ++i) ticks_.push_back(low_ + i * step);
  }

  bool logarithmic_, percent_;
  double low_ = 0, high_ = 1;
  std::vector<double> ticks_;
};

class Plot {
 public:
  explicit Plot(const LineChart& c) : c_(c), y_(c) {
    for (const Line& l : c.lines)
      for (const auto& [x, y] : l.points) blocks_.add(x);
    if (!(blocks_.low <= blocks_.high)) blocks_ = {0, 0};
  }
  std::string svg(const std::string& id) const {
    std::string s = begin(kHeight, c_.title, description(), id) + y_.svg() + block_axis();
    for (const Line& l : c_.lines) s += line(l);
    return s + "</svg>\n";
  }

 private:
  double at(double x) const {
    const double span = blocks_.high - blocks_.low;
    return span > 0 ? kLeft + 6 + (x - blocks_.low) / span * (kRight - kLeft - 12) : (kLeft + kRight) / 2;
  }
  std::string block_axis() const {
    const double step = std::max(1.0, nice_step(std::max(blocks_.high - blocks_.low, 1.0) / 5));
    std::string s;
    for (double b = std::ceil(blocks_.low / step) * step; b <= blocks_.high; b += step)
      s += text_at(at(b), kBottom + 12, "middle", number(b));
    return s + text_at((kLeft + kRight) / 2, kHeight - 2, "middle", "block") + "\n";
  }
  std::string line(const Line& l) const {
    std::string points, dots;
    for (const auto& [x, y] : l.points) {
      points += fmt::format("{}{:.1f},{:.1f}", points.empty() ? "" : " ", at(x), y_.at(y));
      dots += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2\"/>", at(x), y_.at(y));
    }
    return fmt::format("<g class=\"{}\"><polyline points=\"{}\"/>{}</g>\n", l.style, points,
                       l.points.size() <= kMarked ? dots : "");
  }
  std::string description() const {
    const auto shown = [&](double v) { return c_.percent ? percent(v) : number(v); };
    std::string all;
    for (const Line& l : c_.lines) {
      if (l.points.empty()) continue;
      const auto [low, high] = std::ranges::minmax_element(l.points, {}, &std::pair<double, double>::second);
      all += fmt::format("{}: {} in the first block, {} in the last; lowest {} in block {}, highest {} in block {}. ",
                         l.name, shown(l.points.front().second), shown(l.points.back().second), shown(low->second),
                         low->first, shown(high->second), high->first);
    }
    return all;
  }

  const LineChart& c_;
  Axis y_;
  Extent blocks_;
};

double highest(const BarChart& c) {
  double most = 0;
  for (const Bar& b : c.bars) most = std::max(most, b.value);
  return most > 0 ? most : 1;
}

std::string description(const BarChart& c) {
  std::string all;
  for (const Bar& b : c.bars) all += (all.empty() ? "" : ", ") + b.label + ": " + b.text;
  return all;
}

}  // namespace

std::string svg(const LineChart& chart, const std::string& id) { return Plot(chart).svg(id); }

std::string columns_svg(const BarChart& c, const std::string& id) {
  const double most = highest(c), each = (kWidth - 8) / double(std::max<size_t>(1, c.bars.size()));
  std::string s = begin(kHeight, c.title, description(c), id);
  for (size_t i = 0; i < c.bars.size(); ++i) {
    const double x = 4 + double(i) * each, height = c.bars[i].value / most * (kBottom - kTop);
    s += fmt::format("<rect class=\"bar\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\"/>", x + 1,
                     kBottom - height, each - 2, height);
    s += text_at(x + each / 2, kBottom + 12, "middle", c.bars[i].label) + "\n";
  }
  return s + "</svg>\n";
}

std::string bars_svg(const BarChart& c, const std::string& id) {
  constexpr double kRow = 22, kBegin = 70, kEnd = 250;
  const double most = highest(c);
  std::string s = begin(kRow * double(c.bars.size()) + 4, c.title, description(c), id);
  for (size_t i = 0; i < c.bars.size(); ++i) {
    const double y = kRow * double(i) + 4, width = c.bars[i].value / most * (kEnd - kBegin);
    s += text_at(kBegin - 6, y + 12, "end", c.bars[i].label);
    s += fmt::format("<rect class=\"bar\" x=\"{:g}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:g}\"/>", kBegin, y, width,
                     kRow - 6);
    s += text_at(kBegin + width + 6, y + 12, "start", c.bars[i].text) + "\n";
  }
  return s + "</svg>\n";
}

std::string scatter_svg(const ScatterChart& c, const std::string& id) {
  LineChart ranges;
  double most = 0;
  std::string all;
  ranges.lines.emplace_back();
  for (const ScatterPoint& p : c.points) {
    ranges.lines[0].points.emplace_back(p.x, p.y + p.error);
    most = std::max(most, p.x);
    all += fmt::format("{}{}: {} {}, {}", all.empty() ? "" : "; ", p.label, number(p.x), c.x, number(p.y));
  }
  const Axis y(ranges);
  const double step = nice_step(most > 0 ? most / 5 : 1), right = std::max(std::ceil(most / step), 1.0) * step;
  const auto at = [&](double x) { return kLeft + x / right * (kRight - kLeft); };
  std::string s = begin(kHeight, c.title, all, id) + y.svg();
  for (double x = 0; x <= right + step / 2; x += step) s += text_at(at(x), kBottom + 12, "middle", number(x));
  s += text_at((kLeft + kRight) / 2, kHeight - 2, "middle", c.x) + "\n";
  for (const ScatterPoint& p : c.points) {
    const bool beyond_middle = p.x > right / 2;
    s += fmt::format("<line class=\"grid\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1:.1f}\" y2=\"{2:.1f}\"/>", at(p.x),
                     y.at(p.y - p.error), y.at(p.y + p.error));
    s += fmt::format("<g class=\"result\"><circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\"/></g>", at(p.x), y.at(p.y));
    s += text_at(at(p.x) + (beyond_middle ? -6 : 6), y.at(p.y) - 4, beyond_middle ? "end" : "start", p.label) + "\n";
  }
  return s + "</svg>\n";
}

}  // namespace awq
