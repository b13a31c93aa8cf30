#include <awq/awq.h>

#include <iostream>
#include <string_view>

// Links against the whole library, and catches its error as the header declares it.
int main() {
  std::cout << "libawq " << awq::version() << '\n';
  try {
    awq::inspect("no-such-model");
  } catch (const awq::Error& error) {
    std::cout << error.what() << '\n';
    return std::string_view(error.what()).find("no-such-model") != std::string_view::npos ? 0 : 1;
  }
  std::cout << "a missing model was accepted\n";
  return 1;
}
