export function generateAdminKey(): string;
export function hashKey(key: string): string;
