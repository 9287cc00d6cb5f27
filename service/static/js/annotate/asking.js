/** Asking for a step's masks, of a service that may have forgotten what was asked before. Pure: no DOM. */

import { question } from "../lib/history.js";

export const DISPLAY_SIDE = 1024; // masks are drawn on screens; what is saved, the service makes at the photo's size
export const FORGOTTEN = ["embedding_not_found", "invalid_prompt"];

/**
 * @param {import("../lib/history.js").Step} step gets its answer
 * @param {{embedding: object}} work
 * @param {{segment: (id: string, json: object) => Promise<object>, embed: () => Promise<object>}} service
 */
export async function ask(step, work, service) {
  try {
    await one(step, work, service);
  } catch (error) {
    if (!FORGOTTEN.includes(error.code) || (error.code === "invalid_prompt" && !step.parent)) throw error;
    await replay(step, work, service);
  }
}

/** Analyse the photo again and ask every question that led here, in order: the same masks under the same names. */
export async function replay(step, work, service) {
  work.embedding = await service.embed();
  const chain = [];
  for (let at = step; at; at = at.parent) chain.unshift(at);
  for (const at of chain) await one(at, work, service);
}

async function one(step, work, service) {
  const before = step.answer;
  const json = { ...question(step), mask_max_side: DISPLAY_SIDE };
  const answer = await service.segment(work.embedding.id, json);
  step.answer = { ...answer, embedding_id: work.embedding.id };
  if (before?.masks.length !== answer.masks.length) step.chosen = answer.best;
}
