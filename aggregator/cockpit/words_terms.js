/**
 * Names of things that series speak of: English, Simplified Chinese. Those of measurands and media
 * come from the vocabulary that the aggregator itself uses.
 * @module words_terms
 */

/** @type {Record<string, [string, string]>} */
export const TERMS = {
  "method.location": ["location-based", "基于位置"],
  "method.market": ["market-based", "基于市场"],
  "quality.ESTIMATED": ["estimated", "估算"],
  "quality.PARTIAL": ["partial", "不完整"],
  "quality.BAD": ["bad", "不可用"],

  "purpose.industrial-brain": ["industrial brain", "产业大脑"],
  "purpose.future-factory": ["future factory", "未来工厂"],
  "purpose.carbon-emission": ["carbon emission", "碳排放"],
  "purpose.energy-statistics": ["energy statistics", "能源统计"],
  "part.end": ["state at the slot's end", "时段末状态"],

  "aggregate.last": ["last value", "末值"],
  "aggregate.delta": ["difference", "差值"],
  "aggregate.state": ["time in state", "状态时长"],

  "state.0": ["Unknown", "未知"],
  "state.1": ["Running", "运行"],
  "state.2": ["Setup", "调机"],
  "state.3": ["Idle", "空闲"],
  "state.4": ["Starved or blocked", "缺料/阻塞"],
  "state.5": ["Held", "保持"],
  "state.6": ["Fault", "故障"],
  "state.7": ["Planned down", "计划停机"],
  "state.8": ["Off", "关机"],

  "role.main": ["main meter", "总表"],
  "role.sub": ["sub-meter", "分表"],
  "role.pv": ["solar", "光伏"],
  "role.export": ["export", "上网"],
};
