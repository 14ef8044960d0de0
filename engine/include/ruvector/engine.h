/* engine.h - everything the engine offers, in one include. */
#ifndef RUVECTOR_ENGINE_H
#define RUVECTOR_ENGINE_H

#include "ruvector/base.h"
#include "ruvector/distance.h"
#include "ruvector/codes.h"
#include "ruvector/ring.h"
#include "ruvector/trajectory.h"
#include "ruvector/beam.h"
#include "ruvector/hnsw.h"
#include "ruvector/exact.h"
#include "ruvector/kmeans.h"
#include "ruvector/links.h"
#include "ruvector/stats.h"
#include "ruvector/certificate.h"
#include "ruvector/advice.h"
#include "ruvector/bank.h"
#include "ruvector/memory.h"
#include "ruvector/ivf.h"
#include "ruvector/feedback.h"
#include "ruvector/links.h"
#include "ruvector/work.h"
#include "ruvector/plan.h"
#include "ruvector/drift.h"
#include "ruvector/rate.h"

#endif
