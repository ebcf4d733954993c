// What threads share: units that know nothing of each other.
#pragma once

#include <cstddef>

namespace instnorm {

class Work {
  public:
    virtual ~Work() = default;
    virtual ptrdiff_t units() const = 0;
    // Do a unit, on any thread. False: no memory.
    virtual bool run(ptrdiff_t unit) = 0;
};

}  // namespace instnorm
