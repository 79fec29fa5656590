export interface MigrationText {
  readonly name: string;
  readonly everyTime: boolean;
  readonly body: string;
  readonly digest: string;
}
export const APP_ROLE: string;
export function migrations(): MigrationText[];
export function migratePostgres(options: {
  readonly url: string;
  readonly appPassword?: string;
  readonly texts?: readonly MigrationText[];
  readonly report?: (line: string) => void;
}): Promise<{ readonly schema: string; readonly name: string }[]>;
