//! The HTTP house: the serve loop, the layers round every route (outermost first), health, access log.
